"""The cases of test_compose.py: trees of YAML files, command lines, and what is to become of them.

A tree is written as {file without '.yaml': text}; 'config' is the primary one. What Hydra makes of
each case is in hydra_answers.json; after a change here run `python tests/hydra_oracle.py --write`.
"""
import re
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Case:
    name: str
    tree: dict[str, str]
    overrides: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        "Its files on disk; the primary config's."
        for file, text in self.tree.items():
            path = folder / f"{file}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return folder / "config.yaml"


def cases(topic: str, tree: dict[str, str], **overrides: str | tuple) -> list[Case]:
    "Several command lines for one tree."
    return [Case(f"{topic}: {k.replace('_', ' ').strip()}", tree, (v,) if isinstance(v, str)
                 else tuple(v))
            for k, v in overrides.items()]


def trees(topic: str, common: dict[str, str], **configs: str | tuple) -> list[Case]:
    "Several primary configs, or (config, *overrides), for one folder of groups."
    rows = {k: (v,) if isinstance(v, str) else v for k, v in configs.items()}
    return [Case(f"{topic}: {k.replace('_', ' ').strip()}", {**common, "config": v[0]},
                 tuple(v[1:]))
            for k, v in rows.items()]


def columns(text: str) -> list[str]:
    "Words and texts that stand three blanks apart."
    return re.split(r" {3,}|\n", text.strip("\n"))


# -- the `defaults:` list

DB = {"db/mysql": "driver: mysql\nport: 3306\nauth: {user: root}",
      "db/postgres": "driver: postgres\nport: 5432\nauth: {user: pg, tls: true}",
      "db/sqlite": "driver: sqlite\nfile: app.db", "db/empty": "",
      "db/words": "# nothing but words\n",
      "server/apache": "name: apache\nport: 80", "server/nginx": "name: nginx\nport: 8080",
      "number/1": "n: 1", "dot.ted/a": "n: 1", "da-shed/a": "n: 1", "dot.ted/b.c": "n: 2",
      "da-shed/b-c": "n: 2",
      "model/plain": "kind: plain", "model/net/wide": "width: 64",
      "flat/one": "# @package _global_\nwho: one\nport: 1",
      "flat/two": "# @package _global_\nwho: two\nport: 2"}
OURS = "\ndb: {driver: ours, extra: 1}\nwho: us\nport: 0"

LISTS = [
    *trees("_self_", DB,
        first="defaults: [_self_, db: mysql]" + OURS,
        last="defaults: [db: mysql, _self_]" + OURS,
        absent="defaults: [db: mysql]" + OURS,
        in_the_middle="defaults: [flat: one, _self_, db: mysql]" + OURS,
        between_two_of_one_package="defaults: [flat: one, _self_, flat@two: two]" + OURS,
        alone="defaults: [_self_]" + OURS,
        no_list="a: 1",
        empty_list="defaults: []" + OURS,
        before_an_override="defaults: [db: mysql, _self_, override db: sqlite]" + OURS,
        after_an_override="defaults: [db: mysql, override db: sqlite, _self_]" + OURS),
    *trees("options", DB,
        one="defaults: [db: mysql, server: nginx]",
        two_groups_keep_the_order_of_the_list="defaults: [server: nginx, db: mysql]",
        list="defaults: [db: [mysql, sqlite]]",
        list_the_other_way="defaults: [db: [sqlite, mysql]]",
        list_of_one="defaults: [db: [mysql]]",
        empty_list="defaults: [db: []]\na: 1",
        list_into_a_package="defaults: [db@a.b: [mysql, sqlite]]",
        absolute_list="defaults: [/db: [mysql, sqlite]]",
        null="defaults: [db: null, server: nginx]",
        null_chosen=("defaults: [db: null, server: nginx]", "db=mysql"),
        null_chosen_with_a_list=("defaults: [db: null]", "db=[mysql,sqlite]"),
        missing_chosen=("defaults: [db: '???']", "db=mysql"),
        an_empty_file="defaults: [db: empty]\na: 1",
        a_file_of_comments="defaults: [db: words]\na: 1",
        a_number_in_quotes="defaults: [number: '1']",
        in_a_folder_below="defaults: [model: net/wide]",
        in_folders_below="defaults: [model: [net/wide, plain]]",
        in_the_folder_above="defaults: [db: ../server/nginx]",
        null_twice="defaults: [db: null, db: null]\na: 1",
        a_list_and_a_word="defaults: [db: mysql, db: [sqlite]]",
        two_lists="defaults: [db: [mysql], db: [sqlite]]",
        groups_with_dots_and_dashes="defaults: [dot.ted: a, da-shed: a]",
        options_with_dots_and_dashes="defaults: [dot.ted: b.c, da-shed: b-c]",
        with_yaml_suffix="defaults: [db: mysql.yaml, server: nginx]",
        with_yaml_suffix_chosen=("defaults: [db: mysql.yaml]", "db=sqlite.yaml"),
        without_a_group="defaults: [db/mysql]",
        without_a_group_with_suffix="defaults: [db/mysql.yaml]",
        without_a_group_twice="defaults: [db/mysql, db/sqlite, db/mysql]"),
    *trees("optional", DB,
        there="defaults: [optional db: mysql]\na: 1",
        not_there="defaults: [optional db: oracle]\na: 1",
        no_such_group="defaults: [optional local: default]\na: 1",
        one_of_a_list="defaults: [optional db: [mysql, oracle]]",
        chosen=("defaults: [optional db: oracle]", "db=mysql"),
        chosen_to_one_that_is_not_there=("defaults: [optional db: mysql]\na: 1", "db=oracle"),
        null="defaults: [optional db: null]\na: 1",
        with_package="defaults: [optional db@src: mysql, optional db@dst: oracle]",
        absolute="defaults: [optional /db: mysql]"),
]

NET = {"base": "seed: 1\nport: 9", "dir/base": "deep: 2", "dir/sub/leaf": "leaf: 3",
       "model/plain": "kind: plain\nwidth: 1", "model/net/narrow": "width: 8",
       "model/net/wide": "width: 64\ndepth: 2",
       "model/net/cifar_net": "width: 3", "model/net/mnist_net": "width: 1",
       "model/net/act/relu": "act: relu",
       "model/net/act/gelu": "act: gelu", "data/mnist": "name: mnist", "data/cifar": "name: cifar",
       "data_model/mnist_resnet": "patch: 1", "head/linear": "out: 10",
       "head/mlp": "out: 20\nhidden: 30"}
ALL = {**DB, **NET}

PACKAGES = [
    *trees("package", ALL,
        named="defaults: [db@src: mysql]",
        two_of_one_option="defaults: [db@src: mysql, db@dst: mysql]\nsrc: {port: 1}",
        two_of_one_group="defaults: [db@src: mysql, db@dst: sqlite, db: postgres]",
        deep="defaults: [db@a.b.c: mysql]",
        _global_="defaults: [db@_global_: mysql]\nport: 1",
        _global_dot="defaults: [db@_global_.x.y: mysql]",
        _here_in_the_primary="defaults: [db@_here_: mysql]",
        _group_="defaults: [db@_group_: mysql]",
        _group_dot="defaults: [db@_group_.x: mysql]",
        dot_group_="defaults: [db@x._group_: mysql]",
        over_a_header="defaults: [flat@f: one]",
        over_a_header_with_global="defaults: [flat@_global_: one]",
        of_a_nested_group="defaults: [model/net@net: wide]",
        of_a_nested_group_at_home="defaults: [model/net: wide, model/net/act: relu]",
        of_the_group_above="defaults: [model: plain, model/net@model: wide]",
        an_option_without_group="defaults: [base@b]\na: 1",
        an_option_without_group_here="defaults: [dir/base@_here_]",
        an_option_without_group_global="defaults: [dir/base@_global_]",
        an_option_of_a_folder="defaults: [dir/base, dir/sub/leaf]",
        absolute_without_group="defaults: [/base, /dir/base]",
        same_name_as_the_group="defaults: [db@db: mysql]"),
    *[Case(f"header: {name}", {**ALL, "config": config, "group/option": text})
      for name, config, text in [
        ("global", "defaults: [group: option]", "# @package _global_\nx: 1"),
        ("a word", "defaults: [group: option]", "# @package other\nx: 1"),
        ("a path", "defaults: [group: option]", "# @package other.deep\nx: 1"),
        ("global and a path", "defaults: [group: option]", "# @package _global_.other\nx: 1"),
        ("without a blank", "defaults: [group: option]", "#@package other\nx: 1"),
        ("after blank lines", "defaults: [group: option]", "\n\n   # @package other\nx: 1"),
        ("blanks around", "defaults: [group: option]", "#    @package    other   \nx: 1"),
        ("after another header", "defaults: [group: option]",
         "# @author someone\n# @package other\nx: 1"),
        ("after a comment it counts as one", "defaults: [group: option]",
         "# about this\n# @package other\nx: 1"),
        ("after a key it counts as a comment", "defaults: [group: option]",
         "x: 1\n# @package other\ny: 2"),
        ("after three dashes it counts as a comment", "defaults: [group: option]",
         "---\n# @package other\nx: 1"),
        ("twice, the last counts", "defaults: [group: option]",
         "# @package one\n# @package two\nx: 1"),
        ("for a file without keys", "defaults: [group: option]\na: 1", "# @package other\n"),
        ("for its own list, too", "defaults: [group: option]",
         "# @package other\ndefaults: [/server: nginx, /db@d: mysql, _self_]\nx: 1"),
        ("global, for its own list, too", "defaults: [group: option]",
         "# @package _global_\ndefaults: [/db: mysql, /model/net: wide, _self_]\nx: 1\ndb: {port: "
         "1}"),
        ("a list of options, each with its own", "defaults: [flat: [one, two], group: option]",
         "x: 1"),
        ("not used for a package in the list", "defaults: [group@mine: option]",
         "# @package other.deep\nx: 1"),
    ]],
    Case("header: in the primary", {"config": "# @package top\na: 1"}),
    Case("header: in the primary, with a list",
         {**DB, "config": "# @package top\ndefaults: [db: mysql]\na: 1"}),
    Case("header: in the primary, global",
         {**DB, "config": "# @package _global_\ndefaults: [db: mysql]\na: 1"}),
]

# A file in a group with a list of its own: `top/it` is what each row writes.
NESTED = [
    Case(f"nested: {name}",
         {**ALL, "top/other": "o: 1\nw: 1", "top/sub/a": "sub: a", "top/sub/b": "sub: b\nmore: 1",
                             "config": config, "top/it": text}) for name, config, text in [
        (name, "defaults: [top: it, _self_]\nz: 1", text) for name, text in {
            "a group below": "defaults: [sub: a]\nw: 2",
            "_self_ first": "defaults: [_self_, sub: a]\nsub: {sub: mine}",
            "_self_ last": "defaults: [sub: a, _self_]\nsub: {sub: mine}",
            "_self_ absent": "defaults: [sub: a]\nsub: {sub: mine}",
            "_self_ between": "defaults: [other, _self_, sub@_here_: b]\nw: 2\nsub: mine\nmore: 0",
            "only a list": "defaults: [sub: a]",
            "absolute": "defaults: [/db: mysql]\nw: 2",
            "absolute at a package": "defaults: [/db@src: mysql, /db@dst: mysql]",
            "absolute, global": "defaults: [/db@_global_: mysql]",
            "absolute, global and a path": "defaults: [/db@_global_.a.b: mysql]",
            "absolute, here": "defaults: [/db@_here_: mysql]",
            "absolute, group": "defaults: [/db@_group_: mysql]",
            "absolute, deep": "defaults: [/model/net: wide]",
            "absolute, deep, here": "defaults: [/model/net@_here_: wide]",
            "absolute list": "defaults: [/db: [mysql, sqlite]]",
            "here": "defaults: [sub@_here_: b]",
            "at a package": "defaults: [sub@x.y: b]",
            "global": "defaults: [sub@_global_: b]",
            "group": "defaults: [sub@_group_: b]",
            "a neighbour": "defaults: [other]\nw: 2",
            "a neighbour under its own keys": "defaults: [other, _self_]\nw: 2",
            "a neighbour over its own keys": "defaults: [_self_, other]\nw: 2",
            "a neighbour at a package": "defaults: [other@inner]\nw: 2",
            "a neighbour by its full path": "defaults: [/top/other@_here_]\nw: 2",
            "a neighbour by its full path, below itself": "defaults: [/top/other]\nw: 2",
            "a file of the root": "defaults: [/base]",
            "a file of the root, global": "defaults: [/base@_global_]",
            "a file of a folder below": "defaults: [sub/a]",
            "a file of another folder": "defaults: [/dir/base]",
            "a list": "defaults: [sub: [a, b]]\nsub: {sub: mine}",
            "a null": "defaults: [sub: null]\nw: 2",
            "an optional one": "defaults: [optional sub: none, optional /none: none]\nw: 2",
            "a global one": "# @package _global_\ndefaults: [/db: mysql, sub: a]\nw: 2",
            "a global one with its neighbour": "# @package _global_\ndefaults: [other]\nw: 2",
        }.items()]]

LEVELS = {"config": "defaults: [a: one, _self_]\nend: 1",
          "a/one": "defaults: [b: one, _self_]\nat: a",
          "a/b/one": "defaults: [c: one, _self_]\nat: ab",
          "a/b/c/one": "defaults: [d@side: one, /x: one]\nat: abc",
          "a/b/c/two": "at: abc2", "a/b/c/d/one": "defaults: [/x@up: two]\nat: abcd",
          "a/b/c/d/two": "at: abcd2",
          "x/one": "defaults: [y: one]\nat: x", "x/two": "at: x2", "x/y/one": "at: xy",
          "x/y/two": "at: xy2"}
NESTED += cases("levels", LEVELS,
    as_they_are=(), third="a/b/c=two", fourth_at_its_package="a/b/c/d@a.b.c.side=two",
    absolute_in_the_third="x@a.b.c.x=two", below_it="x/y@a.b.c.x.y=two", no_third="~a/b/c",
    value_of_the_fourth="a.b.c.side.at=9", two_at_once=("a/b/c/d@a.b.c.side=two", "x@a.b.c.x=two"))

BASE = {**ALL, "start": "defaults: [db: mysql, server: apache, model: big, _self_]\nlevel: 1",
        "model/big": "defaults: [base, net: narrow, _self_]\nsize: big",
        "model/base": "defaults: [net/act: relu]\nkind: base",
        "model/huge": "defaults: [big, override net: wide]\nsize: huge",
        "exp/none": "# @package _global_\nlr: 1",
        "exp/db": "# @package _global_\ndefaults: [override /db: postgres]\nlr: 2\ndb: {port: 7}",
        "exp/db2": "# @package _global_\ndefaults: [override /db: sqlite]\nlr: 3",
        "exp/self": "# @package _global_\ndefaults: [_self_, override /db: postgres, override "
                    "/server: nginx]\nlr: 4",
        "exp/net": "# @package _global_\ndefaults: [override /model/net: wide, override "
                   "/model/net/act: gelu]",
        "exp/child": "# @package _global_\ndefaults: [db, _self_]\nlr: 5",
        "exp/grandchild": "# @package _global_\ndefaults: [child, override /server: nginx, "
                          "_self_]\nlr: 6",
        "exp/rebel": "# @package _global_\ndefaults: [db, override /db: sqlite]",
        "exp/without": "# @package _global_\ndefaults: [override /db: null, override /server: "
                       "null]\nlr: 7",
        "exp/many": "# @package _global_\ndefaults: [override /db: [mysql, sqlite]]",
        "exp/adds": "# @package _global_\ndefaults: [/head: mlp, override /db: sqlite, "
                    "_self_]\nlr: 8"}

OVERRIDE = [
    *trees("override", BASE,
        in_one_list="defaults: [db: mysql, override db: sqlite]",
        of_a_file_below="defaults: [start, override db: sqlite]",
        of_a_file_below_with_slash="defaults: [start, override /db: sqlite]",
        of_a_nested_group="defaults: [start, override model/net: wide]",
        of_a_nested_group_in_its_own_folder="defaults: [model: huge]",
        with_null="defaults: [start, override db: null]",
        with_a_list="defaults: [start, override db: [mysql, sqlite]]",
        with_an_empty_list="defaults: [start, override db: []]",
        of_a_list="defaults: [db: [mysql, sqlite], override db: postgres]",
        of_a_null="defaults: [db: null, override db: postgres]",
        of_a_missing_one="defaults: [db: '???', override db: postgres]",
        with_a_missing_one_chosen=("defaults: [start, override db: '???']", "db=sqlite"),
        at_a_package="defaults: [db@src: mysql, db@dst: mysql, override db@dst: sqlite]",
        at_the_global_package="defaults: [db@_global_: mysql, override db@_global_: sqlite]",
        of_an_optional_one="defaults: [optional db: oracle, override db: mysql]",
        of_an_optional_one_with_none="defaults: [optional db: mysql, override db: oracle]\na: 1",
        with_the_word_optional="defaults: [db: mysql, optional override db: sqlite]",
        twice_the_first_counts="defaults: [start, override db: postgres, override db: sqlite]",
        command_line_wins=("defaults: [start, override db: postgres]", "db=sqlite"),
        file_with_nothing_but_overrides="defaults: [start, exp: db]",
        of_a_group_listed_before_it="defaults: [db: mysql, exp: db]"),
    *trees("experiment", BASE,
        none="defaults: [start, exp: none]",
        over_a_group="defaults: [start, exp: db]",
        its_keys_lie_over_the_choice="defaults: [start, exp: db, _self_]\ndb: {port: 8}",
        chosen=("defaults: [start, exp: null]", "exp=db"),
        appended=("defaults: [start, _self_]\nlr: 0", "+exp=db"),
        appended_twice_at_two_packages=("defaults: [start, _self_]\nlr: 0", "+exp=db",
                                        "+exp@again=none"),
        self_first="defaults: [start, exp: self]",
        nested_groups="defaults: [start, exp: net]",
        of_an_experiment="defaults: [start, exp: child]",
        of_an_experiment_of_an_experiment="defaults: [start, exp: grandchild]",
        who_wins_the_outer_one="defaults: [start, exp: rebel]",
        who_wins_the_primary="defaults: [start, exp: db, override db: sqlite]",
        who_wins_the_last_of_a_list="defaults: [start, exp: [db, db2]]",
        who_wins_the_last_of_a_list_again="defaults: [start, exp: [db2, db]]",
        who_wins_the_command_line=("defaults: [start, exp: db]", "db=mysql"),
        who_wins_the_command_line_over_all=("defaults: [start, exp: rebel, override db: mysql]",
                                            "db=postgres"),
        who_wins_over_a_value=("defaults: [start, exp: db]", "db.port=1", "lr=9"),
        turns_groups_off="defaults: [start, exp: without]",
        takes_many="defaults: [start, exp: many]",
        adds_a_group="defaults: [start, exp: adds]",
        adds_a_group_that_is_chosen=("defaults: [start, exp: adds]", "head=linear"),
        before_self="defaults: [start, exp: db, _self_]\nlr: 0",
        after_self="defaults: [start, _self_, exp: db]\nlr: 0",
        two_groups=("defaults: [start, exp: null, exp@_global_.more: none]", "exp=db")),
    *[Case(f"override: {name}",
           {**ALL, "config": "defaults: [top: it]", "top/it": text, "top/in": "defaults: [sub: a]",
                                 "top/sub/a": "s: a", "top/sub/b": "s: b",
                                 "top/up": "defaults: [/db: mysql]",
                                 "top/src": "defaults: [/db@src: mysql]"}) for name, text in {
        "relative, in its own folder": "defaults: [in, override sub: b]",
        "absolute, by its package": "defaults: [in, override /top/sub@_global_.top.sub: b]",
        "what a neighbour lists absolutely": "defaults: [up, override /db: sqlite]",
        "what a neighbour puts at a package": "defaults: [src, override /db@src: sqlite]",
        "what a neighbour puts at a package, in full": "defaults: [src, override "
                                                       "/db@_global_.top.src: sqlite]",
    }.items()],
]

INTERPOLATED = trees("interpolation",
                     {**ALL, "net/x": "n: x", "up/it": "defaults: [/net: '${db}_x']",
        "net/mysql_x": "n: mx", "net/sqlite_x": "n: sx", "net/sqlite_apache": "n: sa",
        "net/mysql_apache": "n: ma",
        "exp/sq": "# @package _global_\ndefaults: [override /db: sqlite]",
        "base2": "defaults: [db: mysql]"},
    of_a_group="defaults: [data: mnist, model/net: '${data}_net']",
    of_a_group_chosen=("defaults: [data: mnist, model/net: '${data}_net']", "data=cifar"),
    of_a_group_that_comes_later="defaults: [model/net: '${data}_net', data: mnist]",
    of_two_groups="defaults: [db: mysql, server: apache, net: '${db}_${server}']",
    of_two_groups_chosen=("defaults: [db: mysql, server: apache, net: '${db}_${server}']",
                          "db=sqlite"),
    alone="defaults: [db: mysql, db@other: '${db}']",
    alone_chosen=("defaults: [db: mysql, db@other: '${db}']", "db=sqlite"),
    itself_chosen=("defaults: [data: mnist, model/net: '${data}_net']", "model/net=wide"),
    optional_and_there="defaults: [data: mnist, model: plain, optional data_model: "
                       "'${data}_resnet']",
    optional_and_not_there="defaults: [data: cifar, model: plain, optional data_model: "
                           "'${data}_resnet']",
    of_a_group_overridden_in_the_list="defaults: [db: mysql, net: '${db}_x', override db: sqlite]",
    of_a_group_overridden_by_an_experiment="defaults: [db: mysql, exp: sq, net: '${db}_x']",
    of_a_group_overridden_by_an_experiment_behind="defaults: [db: mysql, net: '${db}_x', exp: sq]",
    of_a_group_of_a_file_below="defaults: [base2, net: '${db}_x']",
    in_a_nested_file="defaults: [up: it, db: mysql]",
    in_a_nested_file_chosen=("defaults: [up: it, db: mysql]", "db=sqlite"),
    as_a_path="defaults: [db: mysql, 'net/${db}_x']",
    with_self_after="defaults: [data: mnist, model/net: '${data}_net', _self_]\nmodel: {net: "
                    "{width: 99}}",
    with_self_before="defaults: [data: mnist, _self_, model/net: '${data}_net']\nmodel: {net: "
                     "{width: 99}}",
    in_an_override="defaults: [db: mysql, net: x, override net: '${db}_x']",
    at_a_package="defaults: [db: mysql, net@n: '${db}_x']",
    of_the_environment="defaults: [net: x, 'net@n': '${oc.env:NO_SUCH_NAME,x}']",
    of_the_environment_as_a_path="defaults: ['${oc.env:NO_SUCH_NAME,db}/mysql']",
    on_the_command_line=("defaults: [data: mnist, model/net: narrow]", "model/net=${data}_net"),
    on_the_command_line_appended=("defaults: [data: mnist]", "+model/net=${data}_net",
                                  "data=cifar"),
    with_the_group_deleted=("defaults: [data: mnist, model/net: '${data}_net']", "~model/net"))

# -- merging: what the second file does to the first

MERGING = [Case(f"merging: {name}", {"low": low, "config": "defaults: [low, _self_]\n" + high})
           for name, low, high in [
    ("a mapping over null", "a: null", "a: {x: 1}"),
    ("null over a mapping", "a: {x: 1}", "a: null"),
    ("null over a list", "a: [1]", "a: null"), ("a list over null", "a: null", "a: [1]"),
    ("null over null", "a: null", "a: null"),
    ("??? over a value", "a: 1", "a: ???"), ("??? over a mapping", "a: {x: 1}", "a: ???"),
    ("??? over a list", "a: [1]", "a: ???"), ("??? in quotes", "a: 1", "a: '???'"),
    ("??? within a mapping", "a: {x: 1}", "a: {x: '???', y: '???'}"),
    ("??? over ???", "a: ???", "a: ???"),
    ("a value over ???", "a: ???", "a: 1"), ("a mapping over ???", "a: ???", "a: {x: 1}"),
    ("null over ???", "a: ???", "a: null"), ("??? over null", "a: null", "a: ???"),
    ("??? over an interpolation", "a: ${b}\nb: 1", "a: ???"),
    ("mappings", "a: {x: {y: 1, z: 2}}", "a: {x: {y: 3, w: 4}}"),
    ("an empty mapping over a full one", "a: {x: 1}", "a: {}"),
    ("a full one over an empty one", "a: {}", "a: {x: 1}"),
    ("a mapping over a value", "a: 5", "a: {x: 1}"),
    ("an empty mapping over a value", "a: 5", "a: {}"),
    ("a value over a mapping", "a: {x: 1}", "a: 5"), ("a value over a list", "a: [1]", "a: 5"),
    ("a list over a value", "a: 5", "a: [1]"), ("a list over a list", "a: [1, 2]", "a: [3]"),
    ("an empty list over a list", "a: [1, 2]", "a: []"),
    ("lists of mappings", "a: [{x: 1}, {y: 2}]", "a: [{z: 1}]"),
    ("an interpolation over a mapping", "a: {x: 1}\nb: {y: 2}", "a: ${b}"),
    ("an interpolation over a list", "a: [1]\nb: [2]", "a: ${b}"),
    ("a mapping over an interpolation of a value", "b: 3\na: ${b}", "a: {x: 1}"),
    ("a mapping over an interpolation of a mapping", "b: {y: 2}\na: ${b}", "a: {x: 1}"),
    ("a mapping over an interpolation of a mapping within", "b: {y: {z: 1}}\na: ${b.y}",
     "a: {x: 1}"),
    ("a mapping over a relative interpolation", "c: {a: '${.b}', b: {y: 1}}", "c: {a: {x: 1}}"),
    ("a mapping over two interpolations in a row", "a: ${b}\nb: ${c}\nc: {z: 1}", "a: {x: 1}"),
    ("a mapping over an interpolation of null", "a: ${b}\nb: null", "a: {x: 1}"),
    ("a mapping over an interpolation of nothing", "a: ${nope}", "a: {x: 1}"),
    ("a mapping over a resolver", "a: ${oc.env:NO_SUCH_NAME,1}", "a: {x: 1}"),
    ("a list over an interpolation of a list", "b: [1]\na: ${b}", "a: [2]"),
    ("a value over an interpolation", "b: {y: 1}\na: ${b}", "a: x"),
    ("interpolations stay as they are",
     "a: ${b}/${c}\nb: ${oc.env:HOME}\nc: ${.b}\nd: '${f:{x: 1}}'", "e: ${a}"),
    ("an escaped interpolation", "a: \\${b}\nb: '\\\\${c}'", "c: 1"),
    ("int keys", "1: a\n2: b", "1: c"),
    ("int keys below", "a: {0: x, 1: y}", "a: {1: z, 2: w}"),
    ("bool and float keys", "true: 1\n1.5: 2", "true: 3\n1.5: 4"),
    ("dotted keys are words", "a: {b: 1}\na.b: 2", "a.b: 3"),
    ("an anchor is a copy", "a: &k {x: 1}\nb: *k", "b: {x: 2}"),
    ("<<", "k: &k {x: 1, y: 2}\na: {<<: *k, y: 3}", "a: {z: 1}"),
    ("numbers and words of YAML",
     "a: 1e-3\nb: 1_000\nc: 0x10\nd: 0o17\ne: 017\nf: 1:30\ng: 2024-01-01\nh: yes\n"
     "i: .inf\nj: .nan\nk: +1\nl: 1.\nm: .5\nn: ~\no: on\np: null\nq: 'null'\nr: 1e3\ns: -.inf\nt: "
     "0b11\nu: 1__0",
     "z: 1"),
    ("blocks of text", "a: |\n  two\n  lines\nb: >-\n  folded\n  text\nc: ''", "z: 1"),
    ("tags", "a: !!str 1\nb: !!float 1\nc: !!int '3'", "z: 1"),
    ("a byte order mark and dashes", "\ufeff---\na: 1\nb: é", "b: ü"),
    ("defaults below the top are a key", "a: {defaults: [db: mysql]}", "b: {defaults: 1}"),
    ("the order of keys", "b: 1\na: {y: 1, x: 2}", "c: 0\na: {x: 3, w: 4, y: 5}\nb: 2")]]
MERGING += trees("merging", {"g/scalars": "x: 1\ny: [1]", "g/none": ""},
    own_value_over_a_group="defaults: [g: scalars]\ng: 5",
    group_over_own_value="defaults: [_self_, g: scalars]\ng: 5",
    group_over_own_null="defaults: [_self_, g: scalars]\ng: null",
    own_null_over_a_group="defaults: [g: scalars]\ng: null",
    empty_group_over_own_value="defaults: [_self_, g: none]\ng: 5",
    empty_group_over_own_mapping="defaults: [_self_, g: none]\ng: {x: 1}",
    an_empty_primary="", a_primary_of_comments="# nothing")

# -- Hydra's own node is left aside

OWN = trees("hydra's own", {"db/mysql": "port: 1", "hydra/default":
                            "defaults: [override hydra_logging: none]\nrun: {dir: x}"},
    a_node="a: 1\nhydra: {run: {dir: x}}", searchpath="a: 1\nhydra: {searchpath: []}",
    an_override="defaults: [db: mysql, override hydra/job_logging: disabled]\na: 1",
    two_overrides="defaults: [override hydra/job_logging: disabled, override /hydra/hydra_logging: "
                  "none, _self_]\na: 1",
    nothing_but_an_override="defaults: [override hydra/job_logging: disabled]\na: 1",
    a_group="defaults: [hydra: default, db: mysql]\na: 1")

# -- the command line

SHOP = {**DB,
        "config": "defaults: [db: mysql, server: apache, _self_]\na: 1\nb: {x: 1, y: {z: 2}}\n"
                        "c: [1, [2, 3], {k: v}]\nn: null\nm: '???'\ni: ${b}\nt: text",
        "db/nested": "defaults: [auth: plain]\ndriver: n", "db/auth/plain": "how: plain",
        "db/auth/ldap": "how: ldap", "db/absolute": "defaults: [/server: nginx]\ndriver: a",
        "more/one": "one: 1",
        "more/two": "two: 2", "more/flat": "# @package _global_\none: 1",
        "more/deep/er": "deeper: 1"}

COMMAND = [
    *cases("key", SHOP,
        a_value="a=2", a_value_below="b.y.z=3", twice_the_last_counts=("a=2", "a=3"),
        a_mapping_by_a_value="b=1",
        a_value_by_a_mapping="a={x: 1}", a_list="c=[9]", a_list_by_a_value="c=9",
        a_value_by_a_list="a=[1]",
        null="b=null", over_null="n=1", mapping_over_null="n={x: 1}", over_missing="m=1",
        missing="b=???",
        mapping_over_missing="m={x: {y: 1}}", an_interpolation_by_a_value="i=1",
        an_interpolation_by_a_mapping="i={x: 5}", an_item="c.0=9", an_item_of_an_item="c.1.1=9",
        a_key_of_an_item="c.2.k=w", a_mapping_over_an_item="c.2={k: w}",
        a_mapping_for_an_item="c.0={k: w}",
        a_mapping_over_a_mapping="b={x: 5}", a_mapping_over_a_mapping_deeper="b={y: {z: 9}}",
        an_empty_mapping_over_a_mapping="b={}", an_empty_mapping_over_a_value="b.x={}",
        a_mapping_with_an_empty_one="b={y: {}}", in_a_group="db.port=1",
        in_a_group_mapping="db={port: 1}",
        a_whole_group_by_an_empty_mapping="db={}", before_its_group=("db.file=x", "db=sqlite"),
        behind_its_group=("db=sqlite", "db.file=x")),
    *cases("+key", SHOP,
        new="+q=1", new_and_deep="+q.w.e=1", new_below="+b.w=1", new_below_a_group="+db.extra=1",
        new_mapping="+q={a: {b: []}}",
        where_null_is="+n=1", where_missing_is="+m=1", below_null="+n.x=1", below_a_value="+a.x=1",
        a_mapping_to_a_mapping="+b={w: 1, y: {v: 3}}", a_list_over_a_list="+c=[9]",
        a_mapping_over_a_value="+a={x: 1}",
        a_list_over_a_value="+a=[1]", a_mapping_over_an_interpolation="+i={w: 1}",
        below_an_interpolation="+i.w=1",
        then_changed=("+q=1", "q=2"), then_deeper=("+q.w=1", "+q.e=2", "q.w=3"),
        with_a_dash="+q-w=1",
        with_a_dollar="+$q=1",
        with_an_underscore="+_q_=1", a_number_below="+b.1=1", empty="+q="),
    *cases("++key", SHOP,
        new="++q=1", new_and_deep="++q.w.e=1", there="++a=2", below_a_value="++a.x=1",
        below_null="++n.x.y=1",
        a_mapping_to_a_mapping="++b={w: 1}", a_list_over_a_list="++c=[9]",
        a_value_over_a_mapping="++b=1",
        below_an_interpolation="++i.x=3", an_item="++c.0=5", a_mapping_to_an_item="++c.2={l: w}"),
    *cases("~key", SHOP,
        there="~a", below="~b.y.z", the_last_one_leaves_an_empty_mapping=("~b.x", "~b.y"),
        a_mapping="~b", a_list="~c",
        an_interpolation="~i", with_its_value="~a=1", with_its_text="~t=text",
        with_its_mapping="~b={x: 1, y: {z: 2}}",
        with_its_list="~c=[1, [2, 3], {k: v}]", with_null_is_without="~a=null",
        of_a_group="~db.port",
        all_of_a_group=("~db.driver", "~db.port", "~db.auth"), then_new=("~a", "+a=2"),
        new_then_gone=("+q=1", "~q")),
    *cases("group", SHOP,
        another="db=sqlite", in_quotes="db='sqlite'", in_double_quotes='db="sqlite"',
        the_same="db=mysql",
        two=("db=sqlite", "server=nginx"), twice_the_last_counts=("db=sqlite", "db=postgres"),
        a_list="db=[mysql,sqlite]",
        an_empty_list="db=[]", a_list_then_a_word=("db=[mysql,sqlite]", "db=postgres"),
        with_suffix="db=sqlite.yaml",
        an_option_below="db=auth/ldap", an_option_above="db=../server/nginx", cast="db=str(sqlite)",
        nested="db=nested", nested_with_its_group=("db=nested", "db/auth=ldap"),
        nested_with_its_group_first=("db/auth=ldap", "db=nested"),
        nested_without_its_group=("db=nested", "~db/auth"),
        absolute=("db=absolute", "server=nginx"),
        absolute_at_its_package=("db=absolute", "server@db.server=apache"),
        interpolated="+server@x=${server}"),
    *cases("+group", SHOP,
        new="+more=one", new_list="+more=[one,two]", new_nested="+more/deep=er",
        new_at_a_package="+more@q.w=one",
        new_at_the_root="+more@_global_=one", new_here="+more@_here_=one",
        new_at_its_group="+more@_group_.x=one",
        new_global="+more=flat", new_global_at_a_package="+more@q=flat",
        at_another_package="+db@src=sqlite",
        two_packages=("+db@src=sqlite", "+db@dst=sqlite"), the_root_dot="+db@_global_.q=sqlite",
        a_list_to_a_word="+db=[sqlite]",
        keys_of_it=("+more=one", "more.one=5"), lies_over_the_file=("+more=one", "+more@b=two"),
        two=("+more=one", "+more/deep=er")),
    *trees("+group", SHOP,
        to_no_list=("a: 1\ndb: {port: 0}", "+db=mysql"),
        to_an_empty_list=("defaults: []\na: 1\ndb: {port: 0}", "+db=mysql"),
        behind_self=("defaults: [_self_, server: nginx]\ndb: {port: 0}", "+db=mysql"),
        behind_a_self_at_the_end=("defaults: [server: nginx, _self_]\ndb: {port: 0}", "+db=mysql"),
        where_a_value_is=("a: 1\ndb: 5", "+db=mysql")),
    *cases("~group", SHOP,
        there="~db", with_its_option="~db=mysql", with_null="~db=null",
        and_chosen=("~db", "db=sqlite"),
        chosen_and=("db=sqlite", "~db"), and_added_is_away=("~db", "+db=sqlite"),
        and_a_key=("~db", "~a"),
        both=("~db", "~server")),
    *trees("~group", SHOP,
        own_keys_stay=("defaults: [db: mysql, _self_]\ndb: {port: 9}", "~db"),
        optional=("defaults: [optional db: nope]", "~db"),
        null=("defaults: [db: null]", "~db"), missing=("defaults: [db: '???']\na: 1", "~db"),
        at_a_package=("defaults: [db@src: mysql, db@dst: mysql]", "~db@src")),
    *trees("group@package", SHOP,
        one_of_two=("defaults: [db@src: mysql, db@dst: mysql]", "db@src=sqlite"),
        both=("defaults: [db@src: mysql, db@dst: mysql]", "db@src=sqlite",
              "db@dst=[postgres,sqlite]"),
        the_root=("defaults: [db@_global_: mysql]", "db@_global_=sqlite"),
        here_is_the_root=("defaults: [db@_here_: mysql]", "db@_global_=sqlite"),
        group_is_its_path=("defaults: [db@_group_.x: mysql]", "db@db.x=sqlite"),
        the_root_dot_is_left_out=("defaults: [db@_global_.x: mysql]", "db@x=sqlite"),
        header_does_not_count=("defaults: [flat: one]", "flat=two")),
]

# -- values, as they stand behind 'a='

VALUES = columns(r"""
yes   on   True   TRUE   tRuE   false   null   NULL   None   0x10   010   00   -0   +1   -1
1_000   1__0   _1   1.
.5   -.5   1.5   +.5e3   1e3   1e-3   1E+3   5.e3   1e   1_0.5_0   1e400   .inf   inf   -inf   INF
nan   NaN
1.2.3   1a   1-2   - 1   1 2   1:30   12:30:45   2024-01-01   2024-01-01T10:00:00   a:b   a: b   :
word   two words
two  blanks   a-b_c   /data/set   ./data/../set-1.tar.gz   C:\data   50%   a@b.c   *   *.py
a*b?c|d   a+b   +   -
--   .   ..   $x   ${b.x}   ${b.x}_${b.y}   pre_${b.x}/post   ${oc.env:HOME,x}
${oc.env:HOME,"a b"}   ${.x}
${b.x} text   \${b.x}   a\b   a\\b   \\   \,   a\,b   a\=b   a\:b   \[x\]   \{x\}   \(x\)   it\ is
'single'
"double"   ''   ""   'a,b'   "a=b"   ' blanks '   'it\'s'   "it's"   'say "x"'   "say \"x\""
'a\b'   'a\\b'   'a\\'
'a\\\'b'   '\n'   '1'   "1.5"   'true'   'null'   '[1,2]'   '{a: 1}'   '#x'   'é'   '???'
'${b.x}'   '${b.${a}}'
'\${b.x}'   '\\${b.x}'   '$'   []   [1]   [1,2,3]   [ 1 , 2 ]   [a, b c, d]   ['a,b', "c"]
[a\,b, c\]]
[[1, [2]], []]   [{x: 1}, {y: [2]}]   [null, true, 1.0, 1, '1', nan, inf]   [${b.x}, x]
[a:b, c:d]   ['', a]   {}
{x: 1}   {x:1,y:2}   { x : 1 , y : 2 }   {x: {y: {}}, z: []}   {x: [1, {y: 2}], z: null}
{1: 2, 3: 4}
{true: 1, 1.5: 2}   {x: 1, x: 2}   {a b: 1}   {a.b: 1}   {a\:b: 1}   {x: ${b.x}}   {x: a:b}
{x: 'a, b'}
{x: 1 y: 2}   {a-b: 1, _c: 2, $d: 3, /e: 4}   int(3.9)   int('3')   int(3)   int(true)   int (3)
int([1.5, '2'])   int({x: 1.5})   float(1)   float('1e-3')   float([1, 2])   str(1)   str(1.0)
str(true)
str([1, true])   str({x: 1})   str('x')   bool(0)   bool(1)   bool(TRUE)   bool('false')
bool([0, 1])
[int(3.9), str(1)]   {x: float(1)}   int(float('3.7'))
int   int x   'int(3)'   ???
""")
VALUES += ["", " ", " x ", "\\ x\\ ", "x\\ ", "\tx\t", "' x '", "'two\nlines'", "a\tb", "'a\tb'",
           "\\\t", "x" * 5000,
           "[" * 20 + "]" * 20]
AB = {"config": "a: 0\nb: {x: 1, y: 2}"}
VALUES += ["sort([3, 1, 2])", "sort(3)", "sort([b, a], reverse=true)", "shuffle([1])",
           "int(value=3)"]
VALUE_CASES = [Case(f"value: a={v[:40]}", AB, (f"a={v}",)) for v in VALUES]


# -- what Hydra refuses, mlkit refuses in one line

BAD = {**SHOP, "e/plain": "defaults: [override /db: sqlite]",
       "e/relative": "# @package _global_\ndefaults: [override db: sqlite]",
       "e/lost": "# @package _global_\ndefaults: [override /nowhere: x]",
       "e/db": "# @package _global_\ndefaults: [override /db: sqlite]",
       "e/twice": "# @package _global_\ndefaults: [/db: mysql]",
       "e/other": "# @package _global_\ndefaults: [/db: sqlite]",
       "e/order": "# @package _global_\ndefaults: [override /db: sqlite, /server: nginx]",
       "e/words": "# @package one two\na: 1",
       "e/nothing": "# @package\na: 1", "e/list": "- 1", "e/number": "5",
       "e/defaults": "defaults: 5",
       "e/selves": "defaults: [_self_, _self_]", "e/lonely": "defaults: [/nowhere: x]",
       "e/twice_a_key": "a: 1\na: 2",
       "e/yaml": "a: [1", "ring/a": "defaults: [b]", "ring/b": "defaults: [a]",
       "ring/far": "defaults: [/ring@_here_: far2]",
       "ring/far2": "defaults: [/ring@_here_: far]", "self": "defaults: [self]",
       "model/m": "defaults: [/net: '${db}']"}

REFUSED = [
    *trees("refused", BAD,
        no_such_option="defaults: [db: oracle]", no_such_group="defaults: [nowhere: x]",
        no_such_file="defaults: [nowhere]",
        no_such_option_in_a_list="defaults: [db: [mysql, oracle]]",
        no_such_option_nested="defaults: [e: lonely]",
        no_such_option_chosen=("defaults: [db: mysql]", "db=oracle"),
        no_such_option_added=("a: 1", "+db=oracle"),
        no_such_option_in_a_chosen_list=("defaults: [db: mysql]", "db=[mysql,oracle]"),
        not_chosen="defaults: [db: '???']",
        not_chosen_but_optional="defaults: [optional db: '???']",
        chosen_as_missing=("defaults: [db: mysql]", "db=???"),
        a_file_not_chosen="defaults: ['db/???']",
        the_root_file_in_itself="defaults: [config]", a_file_in_itself="defaults: [self]",
        a_ring="defaults: [ring: a]",
        a_ring_of_groups="defaults: [ring: far]",
        a_group_twice="defaults: [db: mysql, db: sqlite]",
        a_group_twice_the_same="defaults: [db: mysql, db: mysql]",
        a_group_twice_at_a_package="defaults: [db@s: mysql, db@s: sqlite]",
        a_group_at_its_own_name="defaults: [db: mysql, db@db: mysql]",
        a_group_twice_below="defaults: [db: mysql, e: twice]",
        a_group_twice_below_differing="defaults: [db: mysql, e: other]",
        null_and_an_option="defaults: [db: null, db: mysql]",
        added_a_second_time=("defaults: [db: mysql]", "+db=sqlite"),
        added_the_same_again=("defaults: [db: mysql]", "+db=mysql"),
        added_twice=("a: 1", "+db=mysql", "+db=mysql"),
        added_at_its_own_package=("defaults: [db: mysql]", "+db@_group_=sqlite"),
        forced=("a: 1", "++db=mysql"),
        self_twice="defaults: [_self_, _self_]\na: 1", self_twice_below="defaults: [e: selves]",
        self_at_a_package="defaults: [_self_@x]\na: 1",
        self_as_an_option="defaults: [db: _self_]\na: 1",
        override_of_nothing="defaults: [override db: mysql]",
        override_of_another="defaults: [db: mysql, override server: nginx]",
        override_at_another_package="defaults: [db@s: mysql, override db: sqlite]",
        override_by_an_absolute_name_below="defaults: [db: mysql, e: plain]",
        override_by_a_relative_name="defaults: [db: mysql, e: relative]",
        override_of_nothing_below="defaults: [db: mysql, e: lost]",
        override_before_its_group="defaults: [e: db, db: mysql]",
        override_then_a_group="defaults: [db: mysql, override db: sqlite, server: nginx]",
        override_then_a_group_below="defaults: [db: mysql, e: order]",
        override_in_an_interpolated_file="defaults: [db: mysql, e: '${oc.env:NO_SUCH_NAME,db}']",
        the_word_override_at_a_file="defaults: [override base]",
        the_word_optional_at_a_file="defaults: [optional base]",
        defaults_is_null="defaults: null\na: 1", defaults_is_a_mapping="defaults: {db: mysql}",
        defaults_is_a_word="defaults: db",
        defaults_is_a_number_below="defaults: [e: defaults]", an_entry_is_a_number="defaults: [1]",
        an_entry_is_null="defaults: [null]",
        an_entry_is_a_list="defaults: [[db]]", an_entry_is_empty="defaults: [{}]",
        an_entry_has_two_keys="defaults: [{db: mysql, server: nginx}]",
        an_option_is_a_number="defaults: [number: 1]", an_option_is_a_bool="defaults: [db: yes]",
        an_option_is_a_mapping="defaults: [db: {a: 1}]",
        an_option_in_a_list_is_a_number="defaults: [number: [1]]",
        an_option_in_a_list_is_null="defaults: [db: [null]]",
        interpolation_of_nothing="defaults: [db: '${nowhere}']",
        interpolation_of_a_key="defaults: [db: '${a}']\na: mysql",
        interpolation_to_nothing="defaults: [server: nginx, db: '${server}']",
        interpolation_in_a_list="defaults: [server: nginx, db: ['${server}']]",
        interpolation_of_a_list="defaults: [server: [nginx], db: '${server}']",
        interpolation_of_null="defaults: [server: null, db: '${server}_x']",
        interpolation_of_the_environment="defaults: [db: '${oc.env:NO_SUCH_NAME}']",
        interpolation_of_a_group="defaults: ['${db}': mysql]",
        interpolation_below_of_a_later_visited_group="defaults: [db: mysql, model: m]",
        header_of_two_words="defaults: [e: words]", header_of_none="defaults: [e: nothing]",
        primary_is_a_list="- 1", group_file_is_a_number="defaults: [e: number]",
        yaml_is_broken="a: [1", yaml_below_is_broken="defaults: [e: yaml]",
        a_key_twice="a: 1\na: 2",
        a_key_twice_below="defaults: [e: twice_a_key]",
        two_documents="a: 1\n---\nb: 2", tab="\ta: 1", unknown_anchor="a: *x",
        python_tag="a: !!python/name:os.system x",
        null_key="null: 1", broken_interpolation="a: ${b", empty_interpolation="a: '${}'",
        list_over_a_mapping="defaults: [db: mysql, _self_]\ndb: [1]",
        mapping_over_a_list="defaults: [_self_, db: mysql]\ndb: [1]"),
    *[Case(f"refused: {o}", SHOP, (o,)) for o in ["", " ", *columns(r"""
q=1   q.w=1   b.q=1   b.q.w=1   a.x=1   n.x=1   db.nope=1   b={w: 1}   b={y: {w: 1}}   i.x=1
c.9=1   +c.3=1   c.x=1
+a=1   +t=x   +b.x=1   +b=1   ~q   ~b.q   ~n   ~m   ~a=2   ~a='1'   ~a=   ~b=1   ~c.0   q/w=1
a@b=1   +q@w=1
c[0]=1   -a=1   a   +a   ++a   =1   +=1   a.=1   .a=1   a..b=1   a b=1   +1=1   +é=1   +b.-1=1
~~a   +~a=1   +++q=1
--config=x   db=null   db=1   db=true   db=   +more=null   +more=1   db/=x   /db=x   db@=sqlite
db@a:b=sqlite
db@x=sqlite   db@db=sqlite   db@_global_=sqlite   server@x=nginx   optional db=x   ~db=sqlite
~db@x   ~db=[mysql]
~more   db=mysql,sqlite   db=glob(*)   db=choice(mysql,sqlite)   a=1,2   a=[1],[2]   a=choice(1,2)
a=range(1,3)
a=interval(0,1)   a=sort(3,1)   a=shuffle(1,2)   a=tag(t,choice(1,2))   a=glob(*)   a=int(1,2)
a=int(abc)
a=int(null)   a=int()   a=int(1   a=float(x)   a=bool(yes)   a=str(null)   a=foo(1)   a=foo()
a=b(c)d   a=x)
a=(1)   a=[   a=]   a=[1,]   a=[,1]   a=[1 2   a=[1]x   a=x[1]   a={   a=}   a={x}   a={x:}
a={:1}   a={x:1,}
a={x:1}y   a={null:1}   a={[1]:2}   a='x   a="x   a='x'y   a=x'y'   a='x' 'y'   a='\'   a=${b
a='${b'   a=${}
a='${}'   a=,   a=1,   a=,1
""")]],
    *[Case(f"refused: {' '.join(o)} ({name})", {**SHOP, "config": config}, tuple(o))
      for name, config, o in [
        ("a package is asked for", "defaults: [db@s: mysql, db@t: mysql]", ["db=sqlite"]),
        ("the root is asked for", "defaults: [db@_global_: mysql]", ["db=sqlite"]),
        ("here is no name from outside", "defaults: [db@_here_: mysql]", ["db@_here_=sqlite"]),
        ("group is no name from outside", "defaults: [db@_group_.x: mysql]",
         ["db@_group_.x=sqlite"]),
        ("the root dot is no name from outside", "defaults: [db@_global_.x: mysql]",
         ["db@_global_.x=sqlite"]),
        ("a package is asked for", "defaults: [db@s: mysql]", ["~db"]),
        ("a list is no group", "defaults: [db: [mysql, sqlite]]", ["~db"]),
        ("a key of a group's name takes an option", "a: 1\ndb: 5", ["db=7"])]],
]


# -- what Hydra refuses and mlkit takes on purpose: as Hydra takes another command line, or the
# lines given here

TAKEN = [(Case(f"taken: {name}", tree, tuple(overrides)), like) for name, tree, overrides, like in [
    ("a new key beside a _target_", {"config": "model: {_target_: a.B, x: 1}"}, ["model.y=2"],
     ["+model.y=2"]),
    ("a new mapping beside a _target_", {"config": "model: {_target_: a.B, x: 1}"},
     ["model.y={z: 2}"],
        ["+model.y={z: 2}"]),
    ("an option of a group that no list names", SHOP, ["more=one"], ["+more=one"]),
    ("options of a group that no list names", SHOP, ["more=[one,two]", "db=sqlite"],
     ["+more=[one,two]", "db=sqlite"]),
    ("an option of a group where keys are", {**DB, "config": "db: {port: 1}"}, ["db=mysql"],
     ["+db=mysql"]),
    ("an option of a nested group that no list names", SHOP, ["more/deep=er"], ["+more/deep=er"]),
    ("an experiment that no list names", BASE | {"config": "defaults: [start]"}, ["exp=db"],
     ["+exp=db"]),
    ("it lies over the file's own keys", {**BASE, "config": "defaults: [start, _self_]\nlr: 0"},
     ["exp=db"],
        ["+exp=db"]),
    *[(f"{v} is a text", AB, [f"a={v}"], [f"a='{v}'"]) for v in
      ["#x", "a#b", "é", "größe", "a;b", "a!b", "<x>", "x&y", "x^y", "日本", "a~b", "x>1", "`x`"]],
    ("an item for a list", {"config": "tags: [a]"}, ["tags+=x"], ["tags=[a,x]"]),
    ("a number for a list", {"config": "tags: [a]\nb: {c: []}"}, ["tags+=1", "b.c+=x y"],
     ["tags=[a,1]", "b.c=[x y]"]),
    ("away with keys of a group that no list names", {**DB, "config": "a: 1\ndb: {port: 1}"},
     ["~db"], {"a": 1}),
    ("a plugin of Hydra's that is not there", {"config": "a: 1"}, ["hydra/launcher=submitit"], []),
    ("a group of Hydra's without the word override", {
        "config": "defaults: [_self_, hydra/job_logging: none]\na: 1"}, [], {"a": 1}),
    ("values for Hydra's sweeper", {"config": "a: 1"}, ["+hydra.sweeper.params.a='1,2'"], []),
    ("a search path of null", {"config": "hydra: {searchpath: null}\na: 1"}, [], {"a": 1}),
]]

# -- where Hydra composes something, and mlkit something else on purpose, or nothing (None)

OTHERWISE = [(Case(f"otherwise: {name}", tree, tuple(overrides)), data)
             for name, tree, overrides, data in [
    ("Hydra loses a file's own keys when its list has nothing but overrides", {
        "config": "defaults: [override hydra/job_logging: disabled]\na: 1", "db/m": "p: 1"},
     ["+db=m"],
        {"a": 1, "db": {"p": 1}}),
    ("Hydra shows in one use of a file what is laid over another", {
        "base": "a: {x: 1}", "config": "defaults: [base, _self_, base@again]\na: {x: 2}"}, [],
        {"a": {"x": 2}, "again": {"a": {"x": 1}}}),
    ("Hydra takes _group_ in a header for the name of a key", {
        "config": "defaults: [group: option]", "group/option": "# @package _group_\nx: 1"}, [],
     {"group": {"x": 1}}),
    ("and of _name_, which is the option's", {
        "config": "defaults: [g: x]", "g/x": "# @package _group_._name_\nb: 1"}, [],
     {"g": {"x": {"b": 1}}}),
    ("and so in the file that is run, which is in no group", {
        "config": "# @package _group_\ndefaults: [g: x]\na: 1", "g/x": "b: 1"}, [],
     {"g": {"b": 1}, "a": 1}),
    ("a package below that", {"config": "# @package _group_.x\na: 1"}, [], {"x": {"a": 1}}),
    ("a newer OmegaConf holds no 1 beside a '1'", {"config": "1: a\n'1': b"}, [], None),
    ("a text is no config", {"config": "text"}, [], None),
    ("a key has no slash", SHOP, ["+q/w=1"], None),
    ("nothing is taken away through an interpolation", SHOP, ["~i.x"], None),
]]

# -- of what Hydra refuses, this has a meaning that nobody will mistake; by the end of a case's name
# in REFUSED

LENIENT = {
    "an option of any kind": ["forced", "db=null", "+more=null", "~db (a list is no group)"],
    "a place by each of its names": [
        "db@db=sqlite", "a package that is the group itself",
        "db@_here_=sqlite (here is no name from outside)",
        "db@_group_.x=sqlite (group is no name from outside)",
        "db@_global_.x=sqlite (the root dot is no name from outside)"],
    "a file may have a number for a name, and may be missing": [
        "the word optional at a file", "an option is a number", "an option in a list is a number"],
    "an empty list of defaults": ["defaults is null"],
    "a list in the place of a mapping, as callbacks may be either": ["list over a mapping",
                                                                     "mapping over a list"],
    "what is there can be taken away": ["~n", "~m", "~c.0"],
    "any word is a key, and a quote may stand in a text": ["+1=1", "+é=1", "+b.-1=1", "a=x'y'"],
}
ENDS = tuple(f": {o}" for ends in LENIENT.values() for o in ends)

# -- whole projects

def files(text: str) -> dict[str, str]:
    "'== name' begins a file."
    parts = [p.partition("\n") for p in ("\n" + text).split("\n== ")[1:]]
    return {name.strip(): body for name, _, body in parts}


VISION = files("""
== config
defaults:
  - _self_
  - data: mnist
  - model: cnn
  - callbacks: default
  - logger: null
  - trainer: default
  - paths: default
  - extras: default
  - hydra: default
  - experiment: null
  - hparams_search: null
  - optional local: default
  - debug: null
task_name: train
tags: ["dev"]
train: true
test: true
ckpt_path: null
seed: null
== data/base
defaults:
  - transform: plain
  - sampler: null
data_dir: ${paths.data_dir}
batch_size: 128
num_workers: 0
pin_memory: false
== data/mnist
defaults:
  - base
  - override transform: digits
_target_: src.data.MNIST
train_val_test_split: [55_000, 5_000, 10_000]
== data/cifar
defaults: [base, _self_]
_target_: src.data.CIFAR
batch_size: 64
classes: 10
== data/transform/plain
resize: null
normalize: {mean: [0.5], std: [0.5]}
== data/transform/digits
normalize: {mean: [0.1307], std: [0.3081]}
== data/transform/heavy
defaults: [plain]
resize: 40
augment: [{name: crop, size: 32}, {name: flip, p: 0.5}]
== data/sampler/balanced
_target_: src.data.Balanced
classes: ${...classes}
== model/cnn
defaults:
  - optimizer: adam
  - scheduler: plateau
  - net: small
  - loss@criterion: cross_entropy
_target_: src.models.LitClassifier
compile: false
== model/resnet
defaults: [cnn, override net: resnet, override optimizer: sgd, _self_]
compile: true
net: {depth: 34}
== model/net/small
_target_: src.nets.Small
width: 32
act: {_target_: torch.nn.ReLU, inplace: true}
== model/net/resnet
_target_: src.nets.ResNet
depth: 18
stem: {kernel: 7, stride: 2}
== model/optimizer/adam
_target_: torch.optim.Adam
_partial_: true
lr: 1e-3
weight_decay: 0.0
== model/optimizer/sgd
_target_: torch.optim.SGD
_partial_: true
lr: 0.1
momentum: .9
nesterov: yes
== model/scheduler/plateau
_target_: torch.optim.lr_scheduler.ReduceLROnPlateau
_partial_: true
mode: min
factor: 0.1
patience: 10
== model/scheduler/cosine
_target_: torch.optim.lr_scheduler.CosineAnnealingLR
_partial_: true
T_max: ${trainer.max_epochs}
== model/loss/cross_entropy
_target_: torch.nn.CrossEntropyLoss
== model/loss/focal
_target_: src.losses.Focal
gamma: 2
== callbacks/default
defaults:
  - model_checkpoint
  - early_stopping
  - model_summary
  - rich_progress_bar
  - _self_
model_checkpoint:
  dirpath: ${paths.output_dir}/checkpoints
  filename: "epoch_{epoch:03d}"
  monitor: "val/acc"
early_stopping: {monitor: "val/acc", patience: 100}
model_summary: {max_depth: -1}
== callbacks/model_checkpoint
model_checkpoint:
  _target_: lightning.pytorch.callbacks.ModelCheckpoint
  dirpath: null
  filename: null
  monitor: null
  save_last: null
== callbacks/early_stopping
early_stopping: {_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: "???", min_delta: \
0., patience: 3}
== callbacks/model_summary
model_summary: {_target_: lightning.pytorch.callbacks.RichModelSummary, max_depth: 1}
== callbacks/rich_progress_bar
rich_progress_bar: {_target_: lightning.pytorch.callbacks.RichProgressBar}
== callbacks/none
== logger/csv
csv: {_target_: lightning.pytorch.loggers.csv_logs.CSVLogger, save_dir: "${paths.output_dir}", \
name: "csv/"}
== logger/tensorboard
tensorboard: {_target_: lightning.pytorch.loggers.tensorboard.TensorBoardLogger, save_dir: \
"${paths.output_dir}/tb/"}
== logger/wandb
wandb: {_target_: lightning.pytorch.loggers.wandb.WandbLogger, project: vision, offline: False, \
tags: "${tags}"}
== logger/many
defaults: [csv, tensorboard]
== trainer/default
_target_: lightning.pytorch.trainer.Trainer
default_root_dir: ${paths.output_dir}
min_epochs: 1
max_epochs: 10
accelerator: cpu
devices: 1
== trainer/gpu
defaults: [default]
accelerator: gpu
== trainer/ddp
defaults: [default]
strategy: ddp
accelerator: gpu
devices: 4
sync_batchnorm: True
== paths/default
root_dir: ${oc.env:PROJECT_ROOT,.}
data_dir: ${paths.root_dir}/data/
log_dir: ${paths.root_dir}/logs/
output_dir: ${paths.log_dir}/${task_name}
== extras/default
ignore_warnings: False
enforce_tags: True
== hydra/default
defaults: [override hydra_logging: none, override job_logging: disabled]
run: {dir: "${paths.log_dir}/${task_name}/runs"}
== experiment/example
# @package _global_
defaults:
  - override /data: mnist
  - override /model: cnn
  - override /callbacks: default
  - override /trainer: default
tags: ["mnist", "simple_cnn"]
seed: 12345
trainer: {min_epochs: 10, gradient_clip_val: 0.5}
model: {optimizer: {lr: 0.002}, net: {width: 64}}
data: {batch_size: 64}
logger: {wandb: {tags: "${tags}", group: mnist}}
== experiment/cifar_resnet
# @package _global_
defaults:
  - example
  - override /data: cifar
  - override /data/transform: heavy
  - override /data/sampler: balanced
  - override /model: resnet
  - override /model/scheduler: cosine
  - override /model/loss@model.criterion: focal
  - override /logger: many
  - _self_
tags: [cifar]
model: {criterion: {gamma: 1.5}}
== hparams_search/mnist_optuna
# @package _global_
defaults:
  - override /model/optimizer: sgd
optimized_metric: "val/acc_best"
hydra: {mode: MULTIRUN}
search: {trials: 20, space: {model.optimizer.lr: "interval(0.0001, 0.1)", data.batch_size: \
"choice(32, 64)"}}
== debug/default
# @package _global_
task_name: "debug"
callbacks: null
logger: null
extras: {ignore_warnings: False, enforce_tags: False}
trainer: {max_epochs: 1, accelerator: cpu, devices: 1, detect_anomaly: true}
data: {num_workers: 0, pin_memory: False}
== debug/fdr
# @package _global_
defaults: [default]
trainer: {fast_dev_run: true}
== debug/limit
# @package _global_
defaults: [default, _self_]
trainer: {max_epochs: 3, limit_train_batches: 0.01, limit_val_batches: .05}
""")
LANGUAGE = files("""
== config
defaults:
  - base
  - corpus@data.train: wiki
  - corpus@data.valid: wiki
  - tokenizer: bpe
  - arch: transformer
  - head/lm
  - optim: adamw
  - schedule@optim.schedule: cosine
  - task: pretrain
  - runtime: [single, bf16]
  - optional site: ${oc.env:NO_SUCH_SITE,home}
  - optional tune: ${task}_${optim}
  - _self_
  - recipe: null
data: {valid: {split: valid, shuffle: false}}
name: ${task.name}-${arch.name}
== base
defaults: [paths: local, log: [console, file], extras/seed]
version: 3
== paths/local
root: .
cache: ${.root}/cache
== paths/cluster
root: /scratch/${oc.env:USER,me}
cache: ${.root}/cache
quota: 1e12
== log/console
console: {level: INFO, color: true}
level: INFO
== log/file
file: {path: "${paths.root}/log.txt"}
level: DEBUG
== extras/seed
seed: 7
deterministic: [cudnn, cublas]
== corpus/wiki
defaults: [reader: text, filter: [length, language]]
name: wiki
split: train
shuffle: true
== corpus/code
defaults: [reader: jsonl, filter: []]
name: code
split: train
languages: {python: 0.6, rust: 0.4}
== corpus/reader/text
encoding: utf-8
== corpus/reader/jsonl
field: content
== corpus/filter/length
min: 10
max: ???
== corpus/filter/language
keep: [en]
== tokenizer/bpe
size: 32_000
special: {pad: 0, bos: 1}
== tokenizer/char
size: 256
special: null
== arch/transformer
defaults:
  - block@encoder: standard
  - block@decoder: standard
  - /position@_here_: rotary
  - _self_
name: transformer
dim: 512
decoder: {causal: true}
== arch/rnn
name: rnn
dim: 256
cell: gru
== arch/block/standard
defaults: [attention: full, ffn: mlp, /norm@norm1: layer, /norm@norm2: layer]
depth: 6
== arch/block/light
defaults: [standard, override attention: linear, override /norm@norm2: rms, _self_]
depth: 3
== arch/block/attention/full
heads: 8
dropout: 0.1
== arch/block/attention/linear
heads: 4
feature: elu
== arch/block/ffn/mlp
ratio: 4
act: gelu
== arch/block/ffn/moe
ratio: 2
experts: 8
== norm/layer
eps: 1e-5
== norm/rms
eps: 1e-6
scale: true
== position/rotary
position: {kind: rotary, base: 10000}
== position/none
position: null
== head/lm
tie: true
out: ${tokenizer.size}
== optim/adamw
lr: 3e-4
betas: [0.9, 0.95]
== optim/lion
lr: 1e-4
== schedule/cosine
kind: cosine
warmup: 100
== schedule/linear
kind: linear
warmup: 0
end: 0.0
== task/pretrain
name: pretrain
steps: 1_000
metric: ppl
== task/finetune
defaults: [pretrain]
name: finetune
steps: 100
freeze: [arch.encoder]
== runtime/single
devices: 1
== runtime/bf16
precision: bf16
== runtime/many
devices: 8
strategy: {name: fsdp, shard: full}
== tune/finetune_lion
# @package optim
lr: 2e-5
note: tuned for lion
== site/home
# @package paths
home: true
== recipe/code
# @package _global_
defaults:
  - override /corpus@data.train: code
  - override /tokenizer: char
  - override /arch/block@arch.decoder: light
  - override /arch/block/ffn@arch.encoder.ffn: moe
  - override /runtime: [many, bf16]
data: {train: {languages: {c: 0.1}}}
optim: {schedule: {warmup: 500}}
== recipe/tiny
# @package _global_
defaults: [override /optim: lion, override /task: finetune, override /paths: cluster, override \
/position@arch: none]
arch: {dim: 64, encoder: {depth: 1}, decoder: {depth: 1}}
== recipe/tiny_code
# @package _global_
defaults: [code, tiny, _self_]
arch: {dim: 32}
""")
ROBOT = files("""
== config
defaults:
  - env: cartpole
  - agent: actor_critic
  - buffer: replay
  - explore: greedy
  - /agent/net@probe: mlp
  - sim/physics/engine: fast
  - reward: [alive, speed]
  - curriculum: null
  - eval@evaluation: short
  - launcher: local
  - metrics: default
  - video: off_screen
  - _self_
  - experiment: ???
steps: 10_000
env: {max_steps: 200}
reward: {scale: 2}
== env/base
max_steps: 500
obs: {noise: null, stack: 1}
wrappers: [{_target_: wrap.Time}]
== env/cartpole
defaults: [base]
name: CartPole
actions: 2
== env/walker
defaults: [base, camera: front, _self_]
name: Walker
actions: 6
obs: {stack: 4}
== env/camera/front
size: [84, 84]
angle: 0
== env/camera/top
size: [64, 64]
angle: 90
== agent/base
gamma: 0.99
lr: ???
== agent/actor_critic
defaults: [base, net@actor: mlp, net@critic: mlp, /optimizer@actor.optimizer: adam,
           /optimizer@critic.optimizer: adam, _self_]
critic: {width: 128, optimizer: {lr: 1e-4}}
lr: 3e-4
== agent/dqn
defaults: [_self_, base, net: mlp, target: soft]
gamma: 0.9
== agent/net/mlp
defaults: [init: orthogonal]
width: 64
layers: 2
== agent/net/conv
defaults: [mlp, init@conv_init: zero]
channels: [16, 32]
== agent/net/init/orthogonal
kind: orthogonal
gain: 1.41
== agent/net/init/zero
kind: zero
gain: 0
== agent/target/soft
tau: 0.005
== agent/target/hard
every: 1000
== optimizer/adam
kind: adam
lr: ${agent.lr}
== optimizer/sgd
kind: sgd
lr: 1e-2
momentum: 0.9
== buffer/replay
size: 1_000_000
prioritized: {alpha: 0.6}
== buffer/rollout
size: 2048
prioritized: null
== explore/greedy
eps: [1.0, 0.05]
== explore/noise
sigma: .1
== sim/physics/engine/fast
dt: 0.02
solver: {iterations: 10}
== sim/physics/engine/exact
defaults: [fast, /sim/physics/contact@contact: soft, _self_]
dt: 0.002
== sim/physics/contact/soft
stiffness: 1e3
== sim/physics/contact/hard
stiffness: .inf
== reward/alive
alive: 1
scale: 1
== reward/speed
speed: {weight: 0.5}
scale: 1.5
== reward/energy
energy: -0.1
== curriculum/steps
stages: [{until: 1000, env: {max_steps: 50}}, {until: 5000}]
== eval/short
episodes: 5
== eval/long
episodes: 100
seeds: [0, 1, 2]
== launcher/local
workers: 1
== launcher/cluster
defaults: [/launcher/queue@queue: gpu]
workers: 16
== launcher/queue/gpu
gres: gpu:1
time: "1:30:00"
== launcher/queue/cpu
gres: null
time: 1:30
== metrics/default
# @package monitor
every: 100
names: [return, length]
== video/off_screen
fps: 30
== experiment/none
== experiment/walk
# @package _global_
defaults:
  - override /env: walker
  - override /agent/net@agent.actor: conv
  - override /agent/net/init@agent.critic.init: zero
  - override /optimizer@agent.critic.optimizer: sgd
  - override /reward: [energy, speed, alive]
  - override /sim/physics/engine: exact
  - override /eval@evaluation: long
  - override /explore: noise
env: {camera: {angle: 45}}
agent: {actor: {channels: [8]}}
buffer: null
== experiment/walk_top
# @package _global_
defaults:
  - walk
  - override /env/camera: top
  - override /launcher: cluster
  - _self_
steps: 500
""")

PROJECTS = [
    *cases("vision", VISION, as_it_is=(), an_experiment="experiment=example",
           a_longer_one="experiment=cifar_resnet",
        with_changes=("experiment=example", "trainer=gpu", "model.optimizer.lr=1e-4",
                      "+trainer.precision=16-mixed",
            "~tags"),
        debug=("debug=fdr", "experiment=example"),
        debug_limit=("debug=limit", "logger=csv", "trainer.max_epochs=5"),
        search=("hparams_search=mnist_optuna", "experiment=cifar_resnet", "model/optimizer=adam"),
        loggers=("logger=[csv,wandb]", "callbacks=none", "logger.wandb.offline=true",
                 "tags=[a,'b c']"),
        groups_below=("model=resnet", "model/net=small", "~model.net.depth", "data=cifar",
                      "data/sampler=balanced"),
        loss_at_its_package=("model/loss@model.criterion=focal", "model.criterion.gamma=3",
                             "trainer=ddp"),
        away=("~callbacks", "~logger", "~model/scheduler", "+model/scheduler@model.warmup=cosine")),
    *cases("language", LANGUAGE, as_it_is=(), a_recipe="recipe=code", another="recipe=tiny",
           both="recipe=tiny_code",
        one_corpus=("corpus@data.valid=code", "corpus/filter@data.train.filter=length",
                    "data.train.filter.max=100"),
        both_corpora=("corpus@data.train=code", "corpus@data.valid=code",
                      "corpus/reader@data.valid.reader=text"),
        blocks=("arch/block@arch.encoder=light",
                "arch/block/attention@arch.decoder.attention=linear",
            "norm@arch.decoder.norm1=rms"),
        tuned=("task=finetune", "optim=lion", "schedule@optim.schedule=linear"),
        tuned_by_name="+tune@_global_=finetune_lion",
        runtimes=("runtime=[many]", "runtime.strategy={shard: grad}", "log=[file]", "site=home",
                  "~tokenizer"),
        away=("~corpus@data.valid", "~schedule@optim.schedule", "head={tie: false}"),
        rnn=("arch=rnn", "arch.dim=8")),
    *cases("robot", ROBOT, plain="experiment=none", walk="experiment=walk",
           walk_top="experiment=walk_top",
        walk_changed=("experiment=walk_top", "env/camera=front",
                      "optimizer@agent.actor.optimizer=sgd", "steps=1"),
        dqn=("experiment=none", "agent=dqn", "agent/target=hard", "agent/net=conv", "agent.lr=1"),
        rewards=("experiment=none", "reward=[energy]", "reward.scale=${steps}",
                 "+curriculum@extra=steps"),
        engine=("experiment=none", "sim/physics/engine=exact",
                "sim/physics/contact@sim.physics.engine.contact=hard"),
        launcher=("experiment=none", "launcher=cluster", "launcher/queue=cpu", "buffer=rollout",
            "buffer.prioritized={alpha: 1}"),
        probe=("experiment=walk", "agent/net@probe=conv", "agent/net/init@probe.init=zero",
               "~metrics",
            "~optimizer@agent.critic.optimizer")),
]
REFUSED += [Case("refused: a project whose experiment is not chosen", ROBOT)]
REFUSED += cases("refused, in a project", ROBOT,
    a_package_that_is_the_group_itself=("experiment=none", "launcher=cluster",
                                        "launcher/queue@launcher.queue=cpu"),
    away_with_what_an_experiment_overrides=("experiment=walk", "~agent/net@agent.critic"))

# -- random trees

# each group with those in it
GROUPS = {"a": ["x", "y"], "a/x": [], "a/y": ["z"], "a/y/z": [], "b": ["x"], "b/x": [], "c": [],
          "d": []}
SCALARS = ["1", "2.5", "true", "null", "'???'", "word", "${k}", "'${m.p}'"]
MAPPINGS = ["{}", "{p: 1}", "{p: 2, q: {r: 1}}", "{q: {r: null, s: [1]}}"]
KEYS = {"k": SCALARS, "l": ["[1, 2]", "[]", "[{p: 1}]"], "m": SCALARS + MAPPINGS,
        "n": SCALARS + MAPPINGS,
        "x": MAPPINGS, "pkg": MAPPINGS}
PLACES = ["", "", "", "", "@pkg", "@pkg.sub", "@_global_", "@_here_", "@_group_.in",
          "@_global_.top"]


class Dice(Random):
    "The parts that random trees are made of."
    def __init__(self, seed: int):
        super().__init__(seed)
        # Hydra cannot take away what a list chose
        self.lists = ["[one, two]", "[two]", "[]"] if seed % 2 else []

    def often(self, share: float) -> bool: return self.random() < share

    def body(self) -> str:
        return "".join(f"{k}: {self.choice(KEYS[k])}\n"
                       for k in self.sample([*KEYS], self.randint(0, 4)))

    def option(self) -> str:
        return self.choice(["one", "one", "two", "two", "null", *self.lists])

    def defaults(self, entries: list[str], overrides: list[str]) -> str:
        if self.often(0.7): entries.insert(self.randint(0, len(entries)), "_self_")
        return f"defaults: [{', '.join([*entries, *overrides])}]\n" if entries or overrides else ""

    def file(self, group: str, option: str) -> str:
        """An option; its list leads to groups below, to groups further on in the alphabet, and
        from 'two' to 'one'."""
        header = self.choice([""] * 5
                             + ["# @package _global_\n", "# @package pkg\n",
                                "# @package pkg.sub\n"])
        entries = [f"{o}{self.choice(PLACES)}: {self.option()}" for o in GROUPS[group]
                   if self.often(0.6)]
        entries += [f"/{o}{self.choice(['', '@_here_', '@pkg', '@_global_.far', '@n'])}: "
                    f"{self.option()}"
                    for o in GROUPS if o > group and not o.startswith(group) and self.often(0.25)]
        if option == "two" and self.often(0.4):
            entries.append(self.choice(["one", "one", "one@pkg", f"/{group}/one"]))
        if self.often(0.1): entries.append("optional none: nothing")
        self.shuffle(entries)
        below = GROUPS[group] if "one" in entries and self.often(0.5) else []
        return header + self.defaults(entries,
                                      [f"override {o}: {self.option()}"
                                       for o in below[:1]]) + self.body()


def random_cases(seed: int) -> list[Case]:
    "A tree as it is, and with a command line."
    dice = Dice(seed)
    tree = {f"{group}/{option}": dice.file(group, option) for group in GROUPS
            for option in ("one", "two")}
    keys = [f"{o}{dice.choice(PLACES)}"
            for o in dice.sample(["a", "b", "c", "d", "a/x", "b/x"], dice.randint(1, 4))]
    change = lambda share, slash="": [f"override {slash}{k}: {dice.option()}" for k in keys
                                      if dice.often(share)]
    tree["exp/one"] = "# @package _global_\n" + dice.defaults([], change(0.5, "/")) + dice.body()
    tree["exp/two"] = "# @package _global_\ndefaults: [one, _self_]\n" + dice.body()
    entries = [f"{dice.choice(['', '', '', 'optional '])}{k}: {dice.option()}" for k in keys]
    entries += ["d@by: '${c}'"] * ("c" in keys)
    entries += [f"exp: {dice.choice(['one', 'two'])}"] * dice.often(0.5)
    tree["config"] = dice.defaults(entries, change(0.15)) + dice.body()
    outside = [k.replace("@_here_", "@_global_").replace("@_global_.", "@") for k in keys
               if "_group_" not in k]
    line = [dice.choice([f"{k}=one", f"{k}=two",
                         *([f"{k}=[one,two]", f"{k}=[]"] if dice.lists else [f"~{k}"])])
            for k in outside if dice.often(0.5)]
    line += dice.sample(["++k=5", "++m.p={u: 1}", "+new.q=[1,{z: null}]", "+d@added=two",
                         "+a/y@added.y=one",
                         "+fresh={}", "++x.v=${k}", "++pkg={sub: {w: 1}}", "++n='a, b'"],
                        dice.randint(1, 3))
    return [Case(f"random {seed}", tree), Case(f"random {seed}", tree, tuple(line))]


RANDOM = [case for seed in range(200) for case in random_cases(seed)]
# see TAKEN; of the command line, for what is said of a file begins with "In '…'"
EXCUSED = re.compile(r"\w+: Could not (override|delete) '\S+'\. No match in the defaults list")

# -- the shapes of public projects

def rows(topic: str, common: dict[str, str], text: str) -> list[Case]:
    r"A case a line: its name, the primary config, with \n in it, and its overrides."
    cells = [line.split(" | ") for line in text.strip().splitlines()]
    return [Case(f"{topic}: {name}", {**common, "config": config.replace(r"\n", "\n")}, tuple(more))
            for name, config, *more in cells]


FOLDERS = {
    "exp/s/x": "v: x\nw: {a: 1}", "exp/s/y": "v: y", "exp/s/t/z": "v: z", "exp/r/x": "v: r",
    "exp/s/both": "defaults: [y, t/z@deeper, _self_]\nv: both", "mix/top": "k: top",
    "mix/low/one": "k: one", "mix/low/two": "defaults: [low/one@_here_]\nm: 2",
    "only/a/b/c/deep": "d: 1", "only/a/b/c/other": "d: 2", "num/1/2": "n: 12",
    "dot.s/a-b/c": "n: c",
    "lab/ana/first": "# @package _global_\nwho: ana\ndefaults: [override /exp: s/y]",
    "lab/ben/first": "# @package _global_\ndefaults: [/lab/ana/first, _self_]\nwho: ben",
    "lab/ben/second": "# @package _global_\ndefaults: [override /mix: low/two]\nwho: ben2"}
STEPS = {
    "steps/two": "- crop\n- flip", "steps/one": "- {name: blur, size: 3}", "steps/none": "[]",
    "steps/deep": "- [1, [2]]\n- {a: [b]}\n- null\n- ${n}", "steps/in/folder": "- f",
    "steps/root": "# @package _global_\n- x", "steps/placed": "# @package aug.train\n- p",
    "steps/by_target": "- _target_: a.B\n  p: 0.5\n- _target_: a.C", "steps/map": "k: 1",
    "aug/both": "defaults: [/steps@train: two, /steps@test: one]\nseed: 1",
    "aug/over": "defaults: [/steps@train: two, _self_]\ntrain: [mine]",
    "e/swap": "# @package _global_\ndefaults: [override /steps: one]",
    "steps/note": "# a note\n\n- n # another\n"}
SLASHED = {
    "data/sub/x": "n: 1", "data/y": "n: 2", "data/own": "defaults: [/data/y, sub: /x]\nm: 1",
    "data/list": "defaults: [sub: [/x]]", "data/sub/w": "# @package _global_\nw: 1",
    "e/one": "# @package _global_\ndefaults: [override /data: /sub/x]"}
SHARED = {
    "db/m": "from: main\np: 1", "more/db/m": "from: more", "more/db/only": "from: more",
    "more/extra/one": "e: 1", "more/extra/up": "defaults: [/db: m, one]", "more/lone": "lone: 1",
    "more/steps/l": "- s", "last/db/m": "from: last", "last/db/only": "from: last",
    "last/extra/two": "# @package _global_\ne: 2", "kit/__init__": "",
    "kit/conf/extra/three": "e: 3", "kit/conf/db/only": "from: kit",
    "e/x": "# @package _global_\nhydra: {searchpath: [more]}",
    "e/y": "# @package hydra\nsearchpath: [more]"}
SETTINGS = {
    "hydra/default": "defaults: [override job_logging: mine]\nrun: {dir: out}",
    "hydra/quiet": "verbose: false", "hydra/launcher/mine": "_target_: a.B\nn: 2",
    "hydra/job_logging/mine": "version: 1", "hydra/sweeper/mine": "_target_: a.S",
    "db/m": "p: 1", "e/node": "# @package _global_\nhydra: {run: {dir: q}}\nb: 1",
    "e/kept": "hydra: {run: {dir: q}}\nb: 1", "e/named": "name: q",
    "e/launch": "# @package _global_\ndefaults: [override /hydra/launcher: mine]\nb: 1",
    "e/placed": "# @package hydra.job\nname: q"}
HEADERS = columns("""
__global__   __global__.q   a.__global__   my_global_x   _global_x   x_global_   _global_._global_
_global_.a._global_.b   ._global_.   _global_.   a.   a..b   _global   global   _here_   _self_
_global__   a._global_x.y
""")
SHAPES = [
    *[Case(f"word: {o} in a header", {"config": "defaults: [g: x]", "g/x": f"# @package {o}\nb: 1"})
      for o in HEADERS],
    *[Case(f"word: {o} in the primary's header",
           {"config": f"# @package {o}\ndefaults: [g: plain]\na: 1", "g/plain": "b: 1"})
      for o in ["__global__", "_global_", "_global_.q", "my_global_x", "a.b"]],
    *[Case(f"word: @{o}", {"config": f"defaults: [g@{o}: plain]\na: 1", "g/plain": "b: 1"})
      for o in ["__global__", "a._global_.b", "_global__", "x_global_y.z", "_here_", "_group_.x"]],
    *rows("folders", FOLDERS, r"""
as it is | defaults: [exp: s/x]
another | defaults: [exp: s/x] | exp=s/y
deeper | defaults: [exp: s/x] | exp=s/t/z
of another folder | defaults: [exp: s/x] | exp=r/x
with suffix | defaults: [exp: s/x] | exp=s/y.yaml
in quotes | defaults: [exp: s/x] | exp='s/y'
away | defaults: [exp: s/x]\na: 1 | ~exp
away by name | defaults: [exp: s/x]\na: 1 | ~exp=s/x
at a package | defaults: [exp@p.q: s/x] | exp@p.q=s/y
at the root | defaults: [exp@_global_: s/x] | exp@_global_=s/t/z
added | a: 1 | +exp=s/y
added at a package | a: 1 | +exp@q=s/t/z
added list | a: 1 | +exp=[s/x,s/t/z]
list for list | defaults: [exp: [s/x]] | exp=[s/y,s/t/z]
list for one | defaults: [exp: s/x] | exp=[s/y,r/x]
one for list | defaults: [exp: [s/x, r/x]] | exp=s/y
keys of it | defaults: [exp: s/x] | exp.v=3 | exp.w.a=2
and its keys | defaults: [exp: s/x] | exp=s/y | +exp.w=1
a mapping is a value | defaults: [exp: s/x] | exp={v: 2}
null then | defaults: [exp: null] | exp=s/x
missing then | defaults: [exp: '???'] | exp=s/x
optional then | defaults: [optional exp: 'no'] | exp=s/x
by override | defaults: [exp: s/x, override exp: s/y]
the folder is a group | defaults: [exp/s: x] | exp/s=y
the folder below too | defaults: [exp/s/t: z] | exp/s/t=z
an option of that | defaults: [exp/s: x] | exp/s=t/z
it at the place of the first | defaults: [exp/s@exp: x] | exp/s@exp=both
with a list of its own | defaults: [exp/s: both]
beside files | defaults: [mix: top] | mix=low/one
beside files back | defaults: [mix: low/one] | mix=top
four folders | defaults: [only: a/b/c/deep] | only=a/b/c/other
four folders in parts | defaults: [only/a/b: c/deep] | only/a/b=c/other
an experiment in a folder | defaults: [exp: s/x, mix: top, lab: null] | lab=ana/first
of the other | defaults: [exp: s/x, mix: top, lab: null] | lab=ben/first
that overrides | defaults: [exp: s/x, mix: top, lab: null] | lab=ben/second | exp=s/y
added experiment | defaults: [exp: s/x, mix: top] | +lab=ana/first
added experiments | defaults: [exp: s/x, mix: top] | +lab/ana=first | +lab/ben=second
of numbers | defaults: [num: '1/2']\na: 1
of numbers chosen | a: 1 | +num=1/2
of dots and dashes | defaults: [dot.s: a-b/c] | dot.s=a-b/c
by reference | defaults: [mix: top, exp@second: s/x, exp: 's/${oc.env:NO_SUCH,y}']
by reference to it | defaults: [exp: s/t/z, exp@again: '${exp}']
up and down | defaults: [exp: s/../r/x]
with a dot | defaults: [exp: ./s/x]
"""),
    *rows("list option", STEPS, r"""
as it is | defaults: [steps: two]
of mappings | defaults: [steps: one]
empty | defaults: [steps: none]\na: 1
nested | n: 1\ndefaults: [steps: deep, _self_]
of targets | defaults: [steps: by_target]
with comments | defaults: [steps: note]
in a folder | defaults: [steps: in/folder]
placed | defaults: [steps: placed]
at a package | defaults: [steps@aug.train: two]
twice at packages | defaults: [steps@a: two, steps@b: one]
several the last counts | defaults: [steps: [two, one]]
several the other way | defaults: [steps: [one, two]]
without a group | defaults: [steps/two]
without a group twice | defaults: [steps/two, steps/one]
absolute | defaults: [/steps: two]
optional | defaults: [optional steps: two]
own list over it | defaults: [steps: two, _self_]\nsteps: [mine]
own list below it | defaults: [_self_, steps: two]\nsteps: [mine]
own empty list over it | defaults: [steps: two, _self_]\nsteps: []
null over it | defaults: [steps: two, _self_]\nsteps: null
it over null | defaults: [_self_, steps: two]\nsteps: null
it over missing | defaults: [_self_, steps: two]\nsteps: ???
missing over it | defaults: [steps: two, _self_]\nsteps: ???
a reference over it | defaults: [steps: two, _self_]\nsteps: ${other}\nother: [1]
in an option | defaults: [aug: both]
in an option over | defaults: [aug: over]
chosen | defaults: [steps: two] | steps=one
chosen mapping | defaults: [steps: two] | steps=map
chosen in place of a mapping | defaults: [steps: map] | steps=two
chosen list | defaults: [steps: two] | steps=[one,two]
chosen empty list | defaults: [steps: two]\na: 1 | steps=[]
added | a: 1 | +steps=two
added at | a: 1 | +steps@x.y=one
away | defaults: [steps: two]\na: 1 | ~steps
by an experiment | defaults: [steps: two, e: swap]
at a package chosen | defaults: [steps@a.b: two] | steps@a.b=one
an item | defaults: [steps: two] | steps.0=x
an item at a package | defaults: [steps@a.b: two] | a.b.1=x
in an item | defaults: [steps: one] | steps.0.size=5
a new key in an item | defaults: [steps: one] | +steps.0.new=5
chosen then an item | defaults: [steps: two] | steps=one | steps.0.name=q
all of it is added | defaults: [steps@x: two] | ++x=[q]
"""),
    *rows("absolute option", SLASHED, r"""
as it is | defaults: [data: /sub/x]
in the group | defaults: [data: /y]
two | defaults: [data: //sub/x]
in the middle | defaults: [data: sub//x]
of an absolute group | defaults: [/data: /sub/x]
at a package | defaults: [data@z: /sub/x]
at the root | defaults: [data@_global_: /sub/x]
with suffix | defaults: [data: /sub/x.yaml]
with a header | defaults: [data: /sub/w]
optional | defaults: [optional data: /sub/x]
optional and not there | defaults: [optional data: /no/x]\na: 1
chosen | defaults: [data: y] | data=/sub/x
chosen back | defaults: [data: /sub/x] | data=y
added | a: 1 | +data=/sub/x
added at | a: 1 | +data@q=/y
away | defaults: [data: /sub/x]\na: 1 | ~data
away by name | defaults: [data: /y]\na: 1 | ~data=/y
in a list | defaults: [data: [/sub/x]]
in a list chosen | defaults: [data: y] | data=[/sub/x,y]
without a group | defaults: [/data/y]
without a group two | defaults: [data//y]
in an option | defaults: [data: own]
in a list in an option | defaults: [data: list]
by an experiment | defaults: [data: y, e: one]
up | defaults: [data: /sub/../y]
by reference | defaults: [data: /y, data@b: '${data}']
"""),
    *rows("searchpath", SHARED, r"""
file | hydra: {searchpath: [file://more]}\ndefaults: [extra: one]
plain | hydra: {searchpath: [more]}\ndefaults: [extra: one]
main counts first | hydra: {searchpath: [file://more]}\ndefaults: [db: m]
an option of a known group | hydra: {searchpath: [file://more]}\ndefaults: [db: only]
the first counts | hydra: {searchpath: [file://more, file://last]}\ndefaults: [db: only]
the other way | hydra: {searchpath: [file://last, file://more]}\ndefaults: [db: only]
both | hydra: {searchpath: [file://more, file://last]}\ndefaults: [extra: [one, two]]
an option with a list | hydra: {searchpath: [file://more]}\ndefaults: [extra: up]
without a group | hydra: {searchpath: [more]}\ndefaults: [lone]
a list | hydra: {searchpath: [more]}\ndefaults: [steps: l]
a slash at the end | hydra: {searchpath: [file://more/]}\ndefaults: [extra: one]
a dot | hydra: {searchpath: [file://./more]}\ndefaults: [extra: one]
package | hydra: {searchpath: [pkg://kit.conf]}\ndefaults: [extra: three]
package with slashes | hydra: {searchpath: [pkg://kit/conf]}\ndefaults: [extra: three]
package later | hydra: {searchpath: [more, pkg://kit.conf]}\ndefaults: [db: only, extra: three]
package first | hydra: {searchpath: [pkg://kit.conf, more]}\ndefaults: [db: only, extra: one]
not there | hydra: {searchpath: [file://nowhere]}\ndefaults: [db: m]
no package | hydra: {searchpath: [pkg://no.such]}\ndefaults: [db: m]
no package and one | hydra: {searchpath: [pkg://kit.none, more]}\ndefaults: [extra: one]
empty | hydra: {searchpath: []}\ndefaults: [db: m]
by reference | hydra: {searchpath: ['file://${where}']}\nwhere: more\ndefaults: [extra: one]
by the environment | hydra: {searchpath: ['file://${oc.env:NO_SUCH,more}']}\ndefaults: [extra: one]
beside other settings | hydra: {searchpath: [more], run: {dir: x}}\ndefaults: [extra: one]
on the command line | defaults: [db: m] | hydra.searchpath=[file://more] | +extra=one
in place of the files | hydra: {searchpath: [more]}\ndefaults: [db: only] | hydra.searchpath=[last]
a group is chosen | hydra: {searchpath: [file://more]}\ndefaults: [db: m] | db=only
a new group | hydra: {searchpath: [file://more]}\na: 1 | +extra=one
taken away | hydra: {searchpath: [more]}\ndefaults: [extra: one] | ~extra
"""),
    *rows("hydra", SETTINGS, r"""
run | hydra: {run: {dir: x}}\na: 1
empty | hydra: {}\na: 1
only | hydra: {verbose: true}
many | hydra: {job: {env_set: {A: b}, chdir: true}, sweep: {dir: a}, output_subdir: null}\na: 1
sweep | hydra: {mode: MULTIRUN, sweeper: {params: {a: '1,2'}}}\na: 1
references | hydra: {run: {dir: '${a}/${now:%Y}'}}\na: 1
logging | hydra: {job_logging: {root: {level: INFO}}}\na: 1
with a list | defaults: [db: m, _self_]\nhydra: {run: {dir: x}}\na: 1
group | defaults: [hydra: quiet]\na: 1
group chosen | defaults: [hydra: quiet]\na: 1 | hydra=quiet
optional | defaults: [optional hydra: nope]\na: 1
null | defaults: [hydra: null]\na: 1
launcher | defaults: [override hydra/launcher: mine, _self_]\na: 1
launcher after self | defaults: [_self_, override hydra/launcher: mine]\na: 1
two | defaults: [_self_, override hydra/launcher: mine, override hydra/job_logging: mine]\na: 1
of hydra itself | defaults: [override hydra/job_logging: disabled, override hydra/output: default]
none | defaults: [_self_, override hydra/job_logging: none]\na: 1
null option | defaults: [_self_, override hydra/callbacks: null]\na: 1
at another place | defaults: [hydra/launcher@l: mine]\na: 1
in an option | defaults: [e: node]\na: 1
kept below a key | defaults: [e: kept]\na: 1
by an option | defaults: [e: launch]\na: 1
by two | defaults: [_self_, e: launch, override hydra/launcher: mine]\na: 1
placed | defaults: [e: placed]\na: 1
placed by the list | defaults: [e@hydra.job: named]\na: 1
on the line | a: 1 | hydra.run.dir=.
two on the line | a: 1 | hydra.run.dir=. | a=2 | hydra.sweep.dir=x
forced | a: 1 | ++hydra.run.dir=x
new | a: 1 | +hydra.nope=1
new below | a: 1 | +hydra.job.env_set.A=b
chdir | a: 1 | hydra.job.chdir=true
verbose | a: 1 | hydra.verbose=[a,b]
mode | a: 1 | hydra.mode=MULTIRUN
mode run | a: 1 | hydra.mode=RUN
subdir | a: 1 | hydra.output_subdir=null
mapping | a: 1 | hydra={run: {dir: x}}
launcher on the line | a: 1 | hydra/launcher=mine
launcher, twice | defaults: [_self_, override hydra/launcher: mine]\na: 1 | hydra/launcher=basic
logging on the line | a: 1 | hydra/job_logging=disabled | hydra/hydra_logging=disabled
both | hydra: {run: {dir: x}}\ndefaults: [db: m]\na: 1 | hydra.run.dir=y | db.p=2
words | a: ${hydra:runtime.cwd}\nb: ${now:%Y-%m-%d}\nc: x${hydra:job.name}${python_version:minor}
word of a choice | defaults: [db: m]\na: ${hydra:runtime.choices.db}
word on the line | a: 1 | a=${now:%Y-%m-%d}
word in the middle | a: 1 | a=${hydra:runtime.output_dir}/x
override below | defaults: [hydra: default]\na: 1
added word | a: 1 | +b='${hydra:job.num}'
"""),
]
REFUSED += [
    *rows("refused, folders", FOLDERS, r"""
no such option | defaults: [exp: s/x] | exp=nope
no such option there | defaults: [exp: s/x] | exp=s/nope
the folder itself | defaults: [exp: s/x] | exp=s
a number | exp: 1 | exp=2
a word | exp: 1 | exp=word
a truth value | exp: 1 | exp=true
a word where folders go deep | only: 1 | only=word
no such option in a list | defaults: [exp: s/x] | exp=[s/x,s/nope]
added without file | a: 1 | +exp=s
another is taken away | defaults: [exp: s/x] | ~exp=s/y
a slash at the end | defaults: [exp: s/x] | exp=s/x/
"""),
    *rows("refused, list option", STEPS, r"""
at the root | defaults: [steps: root]
at the root by the list | defaults: [steps@_global_: two]
at the root here | defaults: [steps@_here_: two]
chosen at the root | a: 1 | +steps@_global_=two
no such item | defaults: [steps: two] | steps.5=x
a word in it | defaults: [steps: two] | steps.a=x
"""),
    *rows("refused, absolute option", SLASHED, r"""
not there | defaults: [data: /x]
from the top | defaults: [data: /data/y]
a slash | defaults: [data: /]
chosen and not there | defaults: [data: y] | data=/x
taken away by another name | defaults: [data: /y] | ~data=y
"""),
    *rows("refused, searchpath", SHARED, r"""
a word | hydra: {searchpath: more}\na: 1
numbers | hydra: {searchpath: [1]}\na: 1
a mapping | hydra: {searchpath: {a: more}}\na: 1
in an option | defaults: [e: x]
placed by an option | defaults: [e: y]
another scheme | hydra: {searchpath: [s3://more]}\na: 1
a reference to nothing | hydra: {searchpath: ['${nowhere}']}\na: 1
no such option | hydra: {searchpath: [more]}\ndefaults: [extra: three]
a word on the command line | a: 1 | hydra.searchpath=more
"""),
    *rows("refused, hydra", SETTINGS, r"""
no such setting | hydra: {nope: 1}\na: 1
no such setting below | hydra: {run: {nope: 1}}\na: 1
misspelt on the line | a: 1 | hydra.nope=1
misspelt below on the line | a: 1 | hydra.run.dri=x
a number | hydra: 5\na: 1
null | hydra: null\na: 1
a list | hydra: [1]\na: 1
no such mode | a: 1 | hydra.mode=nope
no such mode in a file | hydra: {mode: twice}\na: 1
no such option | defaults: [hydra: nope]\na: 1
no such group | defaults: [_self_, override hydra/nope: mine]\na: 1
taken away | a: 1 | ~hydra.run
"""),
]

# -- together

COMPOSED = [*LISTS, *PACKAGES, *NESTED, *OVERRIDE, *INTERPOLATED, *MERGING, *OWN, *COMMAND,
            *VALUE_CASES, *PROJECTS, *SHAPES]


# Hydra's own command lines for what mlkit takes in a shorter way
AS_HYDRA = [replace(c, overrides=tuple(like)) for c, like in TAKEN if isinstance(like, list)]
FIXED = [*COMPOSED, *REFUSED, *AS_HYDRA, *(case for case, _ in TAKEN + OTHERWISE)]

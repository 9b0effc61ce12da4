"""Overrides of a multirun for test_sweep.py: some by hand, some drawn at random from the grammar.

What Hydra makes of each is in sweep_answers.json; after a change here run
`python tests/hydra_oracle.py --write-sweeps`."""
from random import Random

OPTIONS = ["adam", "adamw", "rms_prop", "sgd"]  # of the group that `glob` chooses from

FIXED = [f"a={o}" for o in r"""
choice(a,b);choice('a','b');choice("1",2);choice([1,2],[3]);choice({x:1},{y:2});choice(a b, c)
choice(null,true);choice(${b},2);choice(a\,b,c);choice(choice(1,2));choice(choice(1,2),3);choice()
choice(a,b),c;c,choice(a,b);choice(1,,2);choice(1;choice(1))x;[choice(1,2)];choice(int(1.5),2)
choice(int(1.5,2));choice(a=1);choice( 1 ,  2 );choice(1)
range(3);range(0);range(-3);range(1,3);range(3,1);range(3,1,-1);range(0,1,0.25);range(0.1,0.4,0.1)
range(stop=3);range(1,stop=3);range(start=1,stop=7,step=2);range(1,10,step=4);range(start=2)
range(1.0,3);range(1,3,1.0);range(1,2,0);range();range(a);range(1,b);range(1,2,3,4);range(1,2,stap=3)
range(1,step=2);range(10,0,-3);range(1e1,1e2,3e1);range(true);range('3');range([3]);range(0,1,1e-1)
range(1_0);range(null);range(1,2),3;range( 1 , 3 )
interval(0,1);interval(1,0);interval(1,1);interval(0.5,2);interval(1e-4,1e-1);interval(-1,1)
interval(start=1,end=2);interval(end=2,start=1);interval(1);interval(1,2,3);interval();interval(a,b)
interval('1',2);interval([1],2);interval(1,null);interval( 1 , 2 );interval(true,2);interval(0,inf)
int(interval(1,5));int(interval(1.5,5.5));float(interval(1,5));str(interval(1,5));bool(interval(0,1))
int(float(interval(1,5)));json_str(interval(0,1));interval(1,2),3;[interval(1,2)];interval(0,nan)
tag(log,interval(1,2));tag(log, interval(1e-3, 1));tag(a,b,interval(1,2))
tag(interval(1,2));tag(log);tag();tag(log,interval(0,1));tag(b,a,choice(1,2));tag(a,range(3));tag(a,b,c);tag(1,interval(1,2))
tag(a,sweep=interval(1,2));tag(sweep=choice(1,2));tag(a,a,interval(1,2));tag('a b',interval(1,2))
int(tag(log,interval(1,20)));tag(log,int(interval(1,20)));float(tag(t,interval(1,2)));tag(x,sort(2,1))
tag(a,tag(b,interval(1,2)));tag(a,1,2);sort(tag(a,choice(2,1)));tag(true,interval(1,2))
glob(*);glob(a*);glob([a*,s*]);glob(*,exclude=a*);glob(*, exclude=[a*,s*]);glob(include=a*);glob(x*)
glob();glob(*d*);glob(a?am);glob([]);glob(*,*w);glob(a*,b*,c*);glob(1);glob('a*');glob(*),x
glob(exclude=a*);glob([ab]*);sort(glob(*));shuffle(glob(*));choice(glob(*))
sort(3,1,2);sort(c,a,b);sort(3,1,2,reverse=true);sort(choice(3,1,2));sort(choice(b,a),reverse=true)
sort([3,1,2]);sort([3,1,2],reverse=true);sort(list=[3,1,2]);sort(list=[b,a],reverse=true);sort(3);sort()
sort(a);sort(1,a);sort(1.5,1);sort(true,0);sort(sweep=choice(2,1));sort(range(3));sort(range(3,0,-1))
sort(range(3),reverse=true);sort(range(1,10,3),reverse=true);sort(range(10,0,-3));sort(range(0,7,2))
sort(1,2,revers=true);sort(interval(1,2));sort([1],[0]);sort(null,1);sort('b','a');sort(a,'A',Z)
sort(choice([2],[1]));sort(3,1),2;sort(3,1,reverse=false);sort(sort(3,1,2));sort(shuffle(3,1,2))
sort(3,1,reverse=1);sort(3,1,reverse=yes);sort({a:1});sort([2,1],[1]);sort([b,'a',1])
shuffle(1,2,3);shuffle(choice(a,b,c));shuffle(range(4));shuffle(range(0,1,0.25));shuffle([1,2,3])
shuffle(list=[1,2]);shuffle(sweep=range(3));shuffle();shuffle(1);shuffle(interval(1,2));shuffle(a,a,b)
shuffle(sort(3,1,2));shuffle(1,2),3;int(shuffle(1,2));str(shuffle(range(2)));shuffle([])
int(1.5,2.5);float(1,2);str(1,2);bool(0,1);bool(true,false);int('1','2');int(a,b);float(choice(1,2))
int(choice(1.9,2.9));int(range(0.5,3.5));float(range(3));int(range(3));str(range(3));bool(range(2))
str(choice(1,2));str(choice(a,b));bool(choice(true,false));int(sort(2.5,1.5));int(choice([1.5],2.5))
int(null,1);int(1.5),2;int(1.5),int(2.5);str(1),2;float(choice(int(1.5),2));int(float(choice(1.5,2)))
int();float();int(value=1.5);str(value=1);int(valu=1);int(1,value=2);bool(choice(x,y));json_str(1,2)
json_str([1,2]);json_str(choice(1,2));float(a,1);str(null,1);int({a:1.5},{b:2.5});int(choice())
unknown(1,2);unknown(1),2;lambda(x);Choice(1,2);choice (1,2);choice(1,2) ;range (3)
1,2;a,b;1, 2 ,3;1,;,1;1,,2;[1,2],[3];{x:1},{y:2};'a,b',c;"a",'b';a\,b,c
null,1;true,False;1.0,1,1e0;a b,c;a:b,c;${b},c;${b:1,2},c
-1,+1;.5,5.;1_000,0x1;nan,inf;~x,y;a=b,c;x*,y?;a/b,c/d;a@b,c;[],{};'',x
""".replace("\n", ";").strip(";").split(";")]

_NUMBERS = ["0", "1", "2", "3", "-1", "10", "0.5", "1.5", "1e-3", "2.0", "-0.25"]
_VALUES = [*_NUMBERS, "a", "b", "true", "false", "null", "'c'", '"d e"', "[1,2]", "{x:1}", "a b",
           "${b}", r"a\,b", "[]", "x.y", "a/b"]


def _drawn(draw: Random, depth: int = 0) -> str:
    "A value or a sweep, right or nearly so."
    def numbers(n): return [draw.choice(_NUMBERS) for _ in range(n)]
    def values(): return [draw.choice(_VALUES) for _ in range(draw.randint(1, 4))]
    def inner(): return _drawn(draw, depth + 1) if depth < 2 else ",".join(values())
    blank = draw.choice(["", "", "", " "])
    def call(name, args): return f"{name}({f',{blank}'.join(args)})"
    kind = draw.choice("values choice range interval sort shuffle tag cast value".split())
    if kind == "values": return f"{blank},".join(values())
    if kind == "value": return draw.choice(_VALUES)
    if kind == "choice": return call("choice", values())
    if kind == "range":
        start, stop, step = numbers(3)
        return call("range", draw.choice([[stop], [start, stop], [start, stop, step],
                                          [f"stop={stop}"], [start, stop, f"step={step}"]]))
    if kind == "interval": return call("interval", sorted(numbers(2), key=float))
    if kind == "tag": return call("tag", [*draw.choice([["log"], ["a", "b"], []]), inner()])
    if kind == "cast": return call(draw.choice(["int", "float", "str", "bool"]), [inner()])
    if kind == "shuffle": return call("shuffle", [inner()])
    more = draw.choice([[], [], ["reverse=true"]])
    return call("sort", [draw.choice([inner(), ",".join(numbers(3)), "[2,3,1]"]), *more])


RANDOM = [*dict.fromkeys(f"a={_drawn(Random(i))}" for i in range(600))]
CASES = [*dict.fromkeys([*FIXED, *RANDOM])]


# -- where mlkit differs on purpose: a reason, and whether it is that of a case

def _same(a: list | None, b: list | None, but: str = "") -> bool:
    "Are both values, and the same ones but for some characters?"
    def bare(texts): return sorted(o.translate(dict.fromkeys(map(ord, but))) for o in texts)
    return a is not None and b is not None and bare(a) == bare(b)


REASONS = {  # (the override, Hydra's values, ours; None: it is refused, or an interval)
    "a sweep of no runs is refused": lambda o, theirs, ours: theirs == [] and ours is None,
    "null is a value": lambda o, theirs, ours: theirs is None and "None" in (ours or []),
    "a value in a sweep is the text that it is without one, so str(1) is no number":
        lambda o, theirs, ours: _same(theirs, ours, "'"),
    "each cast takes all values that it could take one by one":
        lambda o, theirs, ours: theirs is None and ours and any(
            f"{k}(" in o for k in ("str", "bool", "json_str")),
    "shuffle of one value is that value, and of a list always the same list":
        lambda o, theirs, ours: "shuffle" in o and (
            _same(theirs, ours, "[]") or len(theirs or []) == 1
            and sorted(theirs[0]) == sorted(ours[0])),
    "a range is as exact as it is written":
        lambda o, theirs, ours: o in ("a=range(0.1,0.4,0.1)", "a=range(0,1,1e-1)"),
    "a sorted range has the values of the range": lambda o, *_: o == "a=sort(range(10,0,-3))",
    "an end is a finite number, and not below the start; a logarithm's is above 0":
        lambda o, theirs, ours: "interval" in o and ours is None and (
            "inf)" in o or "nan)" in o or "true" in o or o == "a=interval(1,0)"
            or "tag(log" in o and "interval(0" in o),
    "a sweep in a list, or beside a value, is a mistake":
        lambda o, *_: o in ("a=[choice(1,2)]", "a=[interval(1,2)]", "a=glob(*),x"),
    "true is no number": lambda o, *_: o == "a=range(true)",
    "what a word says plainly is taken": lambda o, *_: o in (
        "a=tag(1,interval(1,2))", "a=tag(true,interval(1,2))", "a=tag(sweep=choice(1,2))",
        "a=sort(glob(*))", "a=shuffle(glob(*))", "a=sort([1],[0])", "a=sort([2,1],[1])",
        "a=choice(1,2) ", "a=~x,y", "a=a=b,c"),
}

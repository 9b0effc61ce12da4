"Folders that are whole or not there, also when several processes make the same one."
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlkit.base.files import atomic_folder


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_folder_is_whole_or_not_there(tmp_path, stop):
    with pytest.raises(stop), atomic_folder(tmp_path / "data" / "set") as made:
        (made / "1.txt").write_text("half of it")
        raise stop
    assert list((tmp_path / "data").iterdir()) == []


def test_many_make_the_same_folder(tmp_path):
    def make(i):
        with atomic_folder(tmp_path / "set") as made:
            for name in "ab": (made / name).write_text(str(i))
    with ThreadPoolExecutor(8) as pool: list(pool.map(make, range(64)))
    assert [o.name for o in tmp_path.iterdir()] == ["set"]
    assert len({(tmp_path / "set" / name).read_text() for name in "ab"}) == 1  # both of one maker


def test_a_file_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(OSError), atomic_folder(tmp_path / "set") as made:
        (made / "a").write_text("")
    assert [o.name for o in tmp_path.iterdir()] == ["set"]
    assert (tmp_path / "set").read_text() == "mine"

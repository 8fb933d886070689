"""YAML with the place of every key: dialect, includes, variables, overrides."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import dialect, document
from recsys.errors import ConfigError


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "main.yaml"


def read(path: Path, *overrides: str, **env: str) -> Any:
    return document.read(path, overrides, env).plain


def problems(path: Path, *overrides: str, **env: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        document.read(path, overrides, env)
    return [str(problem).replace(f"{path.parent}/", "") for problem in error.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("+7", 7),
        ("010", 10),
        ("0x1f", 31),
        ("-.inf", float("-inf")),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("~", None),
        ("", None),
        ("2024-01-02", "2024-01-02"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("'1e-3'", "1e-3"),
        ("!!str 12", "12"),
        ("e3", "e3"),
        (".", "."),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    found = read(write(tmp_path, main=f"a: {text}"))
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), PLAIN))
def test_what_is_dumped_reads_back(tmp_path_factory: pytest.TempPathFactory, data: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("dump") / "main.yaml"
    path.write_text(dialect.dump(data), encoding="utf-8")
    assert read(path) == data


LOOKS = ["1e-3", "yes", "0o17", "12", "null", "~", "", "<<", "${A}", "$${A}", "\x85", "a\u2028b", "a\nb\n", "\ufeff"]


@pytest.mark.parametrize("text", LOOKS)
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str) -> None:
    assert read(write(tmp_path, main=dialect.dump({"a": text, "b": [text]}))) == {"a": text, "b": [text]}


def test_an_empty_file_has_no_keys(tmp_path: Path) -> None:
    assert read(write(tmp_path, main="# nothing\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1,\n", "main.yaml:3: not YAML"),
        ("a: 1\n\tb: 2\n", "main.yaml:2: not YAML: found character '\\t'"),
        ("- 1\n", "main.yaml:1: the file does not hold keys; expected a mapping"),
        ("a: 1\nb:\n  c: 2\n  c: 3\n", "main.yaml:4: c: the key stands twice (also main.yaml:3); remove one of them"),
        ("a: !!python/object:os.system x\n", "main.yaml:1: the tag !!python/object:os.system; expected plain YAML"),
        ("a: !mine {b: 1}\n", "main.yaml:1: the tag !mine"),
        ("a: 1\nb: !!int x\n", "main.yaml:2: the tag !!int on 'x'"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "main.yaml:3: a merge key `<<`"),
        ("a: &x [*x]\n", "main.yaml:1: an alias that contains itself"),
        ("? [1, 2]\n: 3\n", "main.yaml:1: a list or mapping as a key"),
        ("a: 1\n---\nb: 2\n", "main.yaml:2: not YAML"),
        ("a: \x07\n", "main.yaml:1: not YAML"),
        ("a: 1\nb: *nobody\n", "main.yaml:2: not YAML: found undefined alias"),
        ("a: 1\ninclude: 3\n", "main.yaml:2: include: 3; expected a file name"),
        ("include: [nothere.yaml]\n", "main.yaml:1: include: no file nothere.yaml; expected a YAML file, relative"),
        ("include: main.yaml\n", "main.yaml:1: include: main.yaml leads back to this file"),
        ("a: 1\nb: ${NO_SUCH}\n", "main.yaml:2: the environment variable NO_SUCH is not set; export NO_SUCH=..."),
        ("a: '${1X}'\n", "main.yaml:1: ${1X}; expected ${VAR} or ${VAR:-default}"),
        ("a: '${OPEN'\n", "main.yaml:1: ${OPEN; expected ${VAR}"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    (found,) = problems(write(tmp_path, main=text))
    assert found.startswith(message)
    assert "\n" not in found


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.yaml") == ["none.yaml: no such file; expected a YAML file"]
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    assert problems(tmp_path / "latin.yaml") == ["latin.yaml: byte 3 is not UTF-8; expected a YAML file in UTF-8"]
    assert problems(tmp_path)[0].endswith("cannot be read (Is a directory); expected a YAML file")


def test_several_mistakes_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, main="include: b.yaml\na: ${X}\na: 1\n", b="c: ${Y}\n")
    assert [problem.split(":")[1] for problem in problems(path)] == ["2", "3", "1"]


def test_the_including_file_wins_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.yaml").write_text("a: {x: 0, w: 9}\n")
    (tmp_path / "sub" / "one.yaml").write_text("include: deep.yaml\na: {x: 1, y: 1, z: 1}\nlist: [1, 2]\n")
    path = write(tmp_path, main="include: [sub/one.yaml, two.yaml]\na: {z: 3}\nlist: [3]\n", two="a: {y: 2, z: 2}\n")
    assert read(path) == {"a": {"x": 1, "y": 2, "z": 3, "w": 9}, "list": [3]}


def test_another_kind_inherits_nothing(tmp_path: Path) -> None:
    base = "s: {kind: temporal, valid: 0.2, test: 0.3}\n"
    assert read(write(tmp_path, base=base, main="include: base.yaml\ns: {kind: random, valid: 0.1}\n")) == {
        "s": {"kind": "random", "valid": 0.1}
    }
    assert read(write(tmp_path, base=base, main="include: base.yaml\ns: {kind: temporal, valid: 0.1}\n")) == {
        "s": {"kind": "temporal", "valid": 0.1, "test": 0.3}
    }


def test_another_method_inherits_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, base="t: {method: full, dim: 3}\n", main="include: base.yaml\nt: {method: hashed}\n")
    assert read(path) == {"t": {"method": "hashed"}}


def test_a_file_may_be_included_twice_but_not_in_a_circle(tmp_path: Path) -> None:
    files = {"left": "include: base.yaml\nl: 1", "right": "include: base.yaml\nr: 1", "base": "b: 1"}
    assert read(write(tmp_path, main="include: [left.yaml, right.yaml]", **files)) == {"b": 1, "l": 1, "r": 1}
    path = write(tmp_path, main="include: left.yaml", **files | {"base": "b: 1\ninclude: right.yaml"})
    assert problems(path) == ["right.yaml:1: include: base.yaml leads back to this file; break the circle of includes"]


def test_variables(tmp_path: Path) -> None:
    text = (
        "whole: ${N}\nquoted: '${N}'\npart: n=${N}\ndefault: ${NO:-1e-3}\nempty: ${EMPTY:-x}\nset_empty: '${EMPTY}'\n"
        "escaped: $${N}\npath: ${D:-/a}/b\nyes: ${T}\nonce: ${RAW}\ncost: 5$\n"
    )
    found = read(write(tmp_path, main=text), N="12", EMPTY="", T="true", RAW="'${N}'")
    assert found == {
        "whole": 12,
        "quoted": "12",
        "part": "n=12",
        "default": 0.001,
        "empty": "x",
        "set_empty": "",
        "escaped": "${N}",
        "path": "/a/b",
        "yes": True,
        "once": "'${N}'",
        "cost": "5$",
    }


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, main="a: {b: 1, c: [1, {d: 2}]}\n")
    assert read(path, "a.b=1e-2", "a.c.1.d=x=y", "a.c.0=[5]", "new.deep=${V}", "a.e={f: no}", V="3") == {
        "a": {"b": 0.01, "c": [[5], {"d": "x=y"}], "e": {"f": "no"}},
        "new": {"deep": 3},
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a.b", "--set a.b: not of the form KEY=VALUE; expected --set dotted.key=value"),
        ("=3", "--set =3: not of the form KEY=VALUE"),
        ("a..b=3", "--set a..b=3: not of the form"),
        ("a.b.x=3", "--set a.b.x: `a.b` is 1 (main.yaml:1) and has no keys"),
        ("a.c.7=3", "--set a.c.7: `a.c` is a list of 2, it has no '7'; expected an index from 0"),
        ("a.c.x=3", "--set a.c.x: `a.c` is a list of 2, it has no 'x'"),
        ("a.b=[1", "--set a.b: not YAML"),
        ("a.b=${NO}", "--set a.b: the environment variable NO is not set"),
    ],
)
def test_overrides_that_do_not_fit(tmp_path: Path, override: str, message: str) -> None:
    (found,) = problems(write(tmp_path, main="a: {b: 1, c: [1, {d: 2}]}\n"), override)
    assert found.startswith(message)

"""Profiles are checked before anything is touched, and a mistake names file and key."""

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.profile import load_profile

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.toml")), ids=lambda p: p.name)
def test_shipped_profiles_are_valid_and_say_what_they_prove(path: Path) -> None:
    profile = load_profile(path)
    assert profile.description
    assert profile.proves


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('name = "x"\n[load]\naxis = "gbps"', "load.axis"),
        ('name = "x"\n[load]\nvalues = [1, -2]', "load"),
        ('name = "x"\n[load]\nvalues = []', "load"),
        ('name = "x"\n[load]\nduration = 0', "load.duration"),
        ('name = "x"\nspeed = 3', "speed"),
        ('name = "a/b"', "name"),
        ("", "name"),
        ('name = "x"\n[load.auto]\nlowest = 3\nhighest = 2', "load.auto"),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such profile"):
        load_profile(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_profile(broken)


def test_a_corpus_path_is_relative_to_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('name = "x"\n[corpus]\npath = "c.pcap"')
    assert load_profile(path).corpus.path == tmp_path / "c.pcap"

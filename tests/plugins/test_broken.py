"""Ten bad distributions at once: each is explained, none does harm."""

from . import bad


def test_ten_bad_distributions_harm_nothing(tmp_path):
    bad.install(tmp_path)
    assert len(bad.EXPLAINED) == 10
    bad.prove(tmp_path)
    bad.uninstall(tmp_path)
    assert list(tmp_path.iterdir()) == []

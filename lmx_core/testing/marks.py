"""The suite of a component as one parametrised test."""

from collections.abc import Mapping
from typing import Any

import pytest

from lmx_core.errors import ConfigError, did_you_mean
from lmx_core.testing.suites import cases


def conformance(
    kind_and_name: str,
    component: Any = None,
    *,
    options: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """A test with the argument `check`, run as `check()`, for each promise of the component; arguments as of `cases`.

    `expected_failures` says, by the names of checks, why one fails: a promise that the component cannot keep. Once it
    keeps it, the test fails until the line is removed.
    """
    suite = cases(kind_and_name, component, options=options, config=config)
    expected = expected_failures or {}
    names = [case.name for case in suite]
    for name, reason in expected.items():
        if name not in names:
            raise ConfigError(
                f"no check named {name!r} for {kind_and_name}. {did_you_mean(name, names)}Checks: {', '.join(names)}."
            )
        if not reason.strip():
            raise ConfigError(f"expected_failures[{name!r}] has no reason. Say why {kind_and_name} cannot keep it.")
    marks = {name: [pytest.mark.xfail(reason=reason, strict=True)] for name, reason in expected.items()}
    values = [pytest.param(case.run, id=case.name, marks=marks.get(case.name, [])) for case in suite]
    return pytest.mark.parametrize("check", values)

"""Requests that a machine made up from the OpenAPI document."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

EXAMPLES = 12
OPERATIONS = {
    "/v1/chat/completions": {200, 400},
    "/v1/completions": {200, 400},
    "/v1/models/{model}": {404},
    "/v1/load_lora_adapter": {400},
    "/v1/unload_lora_adapter": {404},
}
"""Those that take something, and statuses without which the requests would have reached nothing."""


@pytest.mark.parametrize("path", OPERATIONS)
def test_no_made_up_request_is_a_crash(shared, path):
    """Whatever a client sends, such as the document allows or such as it does not, no route answers with a 5xx."""
    schema = schemathesis.openapi.from_dict(shared.app.openapi())
    (operation,) = [each.ok() for each in schema.get_all_operations() if each.ok().path == path]
    allowed, other = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)
    statuses: set[int] = set()

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(allowed | other)
    def fuzz(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = "base"  # a made-up name would never get beyond it
        response = case.call(base_url=shared.url)
        statuses.add(response.status_code)
        assert response.status_code < 500, case.body
        if response.status_code >= 400:
            assert response.json()["error"].keys() == {"message", "type", "param", "code"}

    fuzz()
    assert statuses >= OPERATIONS[path]

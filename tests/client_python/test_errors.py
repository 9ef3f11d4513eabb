"""One typed error for each code of the service."""

from __future__ import annotations

import pickle

import httpx
import pytest

import kronos_api_client
from kronos_api.errors import error_codes
from kronos_api_client import ERRORS, KronosError, QueueFull, Unavailable
from kronos_api_client.errors import error_of
from tests.client_python.service import refusal


@pytest.mark.parametrize("code", error_codes())
def test_every_code_of_the_service_has_a_class(code: str) -> None:
    kind = ERRORS[code]
    assert kind is not KronosError
    assert kind.__name__ in kronos_api_client.__all__
    assert type(error_of(refusal(400, code))) is kind


def test_classes_of_unavailability_have_a_common_base() -> None:
    unavailable = {code for code, kind in ERRORS.items() if issubclass(kind, Unavailable)}
    assert unavailable == {"CALLER_UNKNOWN", "MODEL_NOT_READY", "QUEUE_FULL", "SHUTTING_DOWN"}


def test_error_has_all_that_the_envelope_says() -> None:
    details = [{"field": "freq", "index": None, "constraint": "given"}]
    error = error_of(refusal(503, "QUEUE_FULL", details, retry_after="3"))
    assert isinstance(error, QueueFull)
    assert (error.message, error.code, error.status) == ("No.", "QUEUE_FULL", 503)
    assert (error.details, error.request_id, error.retry_after) == (details, "r-1", 3)
    assert str(error) == "No. (QUEUE_FULL, request r-1)"


def test_unknown_code_is_a_plain_error() -> None:
    error = error_of(refusal(418, "TEAPOT"))
    assert type(error) is KronosError
    assert (error.code, error.status) == ("TEAPOT", 418)


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"error": "Forbidden"}', b'{"detail": 1}'])
def test_response_of_a_proxy_is_named_by_its_status(content: bytes) -> None:
    request = httpx.Request("POST", "http://user:s3cret@service/v1/predict/single")
    response = httpx.Response(502, content=content, request=request)
    error = error_of(response)
    assert type(error) is KronosError
    assert (error.code, error.status, error.details) == ("HTTP_502", 502, [])
    assert "http://service/v1/predict/single answered 502" in str(error)


def test_redirect_names_its_target() -> None:
    request = httpx.Request("POST", "http://service/v1/predict/single")
    headers = {"Location": "https://service/v1/predict/single"}
    error = error_of(httpx.Response(308, headers=headers, request=request))
    assert error.code == "HTTP_308"
    assert "redirects to https://service/v1/predict/single; use that base URL" in error.message


def test_errors_survive_other_processes() -> None:
    error = error_of(refusal(503, "QUEUE_FULL", retry_after="3"))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is QueueFull
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)

"""Settings: defaults, bounds, rules between them, and the lines that an operator reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kronos_api.config import Settings, load_settings, unknown_variables, variable
from kronos_api.errors import StartupError
from kronos_api.security.whitelist import Whitelist

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"


def settings_of(**values: Any) -> Settings:
    """Settings by the names of the environment, which a type checker does not know."""
    return Settings(**values)


def example() -> list[tuple[str, str, str]]:
    """Comment, name and value of each variable in the example file."""
    found = re.findall(r"^# (.+)\n([A-Z_]+)=(.*)$", EXAMPLE.read_text("utf-8"), re.M)
    return [(comment, name, value.strip('"')) for comment, name, value in found]


def test_defaults_that_callers_know() -> None:
    settings = load_settings()
    assert (settings.default_pred_len, settings.default_temperature) == (120, 1.0)
    assert (settings.default_top_k, settings.default_top_p) == (0, 0.9)
    assert (settings.default_sample_count, settings.clip_value) == (1, 5.0)
    assert (settings.max_request_size_mb, settings.max_request_bytes) == (10, 10 * 2**20)
    assert (settings.inference_timeout, settings.request_timeout) == (30, 60)
    assert settings.startup_timeout == 120
    assert settings.model_source is settings.tokenizer_source is None


def test_the_example_file_lists_every_setting_with_its_default() -> None:
    listed = {name: (comment, value) for comment, name, value in example()}
    names = {variable(name): field for name, field in Settings.model_fields.items()}
    assert [name for name in listed if name in names] == list(names)
    for name, field in names.items():
        comment, value = listed[name]
        assert comment == (field.description or "").strip()
        default = "" if field.default is None else field.default
        assert value == (f"{default:g}" if isinstance(default, float) else str(default))


def test_the_example_file_lists_what_the_compose_files_read() -> None:
    listed = {name: value for _, name, value in example()}
    # Where a container needs another default than a process does.
    own = {"KRONOS_CONTAINER_WHITELIST", "KRONOS_LOG_LEVEL", "KRONOS_REDIS_URL"}
    own |= {"KRONOS_TRUSTED_PROXIES"}
    files = [*ROOT.glob("docker-compose*.yml"), ROOT / "monitoring" / "docker-compose.yml"]
    text = "".join(file.read_text("utf-8") for file in files)
    read = re.findall(r"\$\{([A-Z_]+):([-?])([^}]*)\}", text)
    assert len(read) > 10
    assert {
        name: value for name, kind, value in read if kind == "-" and name not in own
    }.items() <= (listed.items())
    assert {name for name, _, _ in read} <= set(listed)
    # Exporting the whole file causes no warning.
    assert unknown_variables(listed) == []


def test_the_example_file_is_read_as_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {variable(name) for name in Settings.model_fields}
    for _, name, value in example():
        if name in names:
            monkeypatch.setenv(name, value)
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PORT", "tcp://10.0.0.1:8000", "integer"),
        ("PORT", "0", "greater than or equal to 1"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("LOG_LEVEL", "loud", "'DEBUG', 'INFO'"),
        ("DEVICE", "tpu", "auto|cpu|cuda"),
        ("DEVICE", "cuda:", "auto|cpu|cuda"),
        ("DTYPE", "float16", "'float32', 'bfloat16' or 'int8'"),
        ("MAX_CONTEXT", "1", "greater than or equal to 2"),
        ("MAX_CONTEXT", "4097", "less than or equal to 4096"),
        ("WINDOW_POLICY", "slide", "'anchor' or 'exact'"),
        ("TORCH_THREADS", "0", "greater than or equal to 1"),
        ("DEFAULT_PRED_LEN", "513", "less than or equal to 512"),
        ("DEFAULT_TEMPERATURE", "nan", "finite"),
        ("DEFAULT_TOP_P", "0", "greater than 0"),
        ("CLIP_VALUE", "inf", "finite"),
        ("MAX_REQUEST_SIZE_MB", "-1", "greater than 0"),
        ("KV_CACHE_MB", "1", "greater than or equal to 16"),
        ("RATE_LIMIT_PER_MINUTE", "0", "greater than or equal to 1"),
        ("RATE_LIMIT_BATCH", "series", "'items', 'request' or 'decode_steps'"),
        ("REPLICAS", "0", "greater than or equal to 1"),
        ("STARTUP_TIMEOUT", "0", "greater than 0"),
        ("SECURITY_ENABLED", "maybe", "valid boolean"),
        (
            "CONTAINER_WHITELIST",
            "web,10.0.0.300",
            "entry 2 must be an address, a CIDR block",
        ),
        ("CONTAINER_WHITELIST", "10.0.0.1/8", "entry 1 must be a CIDR block"),
        ("TRUSTED_PROXIES", "*", "entry 1 must be an address"),
        ("SECURITY_EXEMPT_PATHS", "health", "paths that start with /"),
        ("ALLOWED_HOSTS", "a, https://b", "entry 2 must be a host without scheme and port"),
        ("ALLOWED_HOSTS", "a.example:80", "such as api.example.com"),
        ("CORS_ORIGINS", "https://a/, b", "entry 1 must be an origin without a path, such as"),
        ("CONTAINER_WHITELIST", "serviceaccount:shop", "entry 1 must be serviceaccount:NAMESPACE"),
        ("CONTAINER_WHITELIST", "a,serviceaccount:*/*", "entry 2 must be serviceaccount:NAMESPACE"),
        ("CONTAINER_WHITELIST", "serviceaccount:Shop/web", "such as serviceaccount:shop/web"),
        ("TRUSTED_PROXIES", "serviceaccount:shop/web", "by its address or its name in DNS"),
        ("SERVICE_ACCOUNT_JWKS", "http://10.0.0.1/jwks", "must be an https URL, or a file"),
        ("SERVICE_ACCOUNT_JWKS", "https://user:secret@host/jwks", "must be an https URL"),
        ("SERVICE_ACCOUNT_JWKS", "https://host:port/jwks", "must be an https URL"),
        ("NAME_SUBNETS", "0.0.0.0/0", "entry 1 must be a CIDR block of private addresses"),
        ("DNS_SERVERS", "dns", "entry 1 must be address, address:port"),
        ("DNS_TIMEOUT", "0.3", "less than or equal to 0.25"),
        ("LIMIT_CONCURRENCY", "0", "greater than or equal to 1"),
        ("LIMIT_MAX_REQUESTS", "0", "greater than or equal to 1"),
        ("GUNICORN_WORKERS", "0", "greater than or equal to 1"),
        ("GUNICORN_WORKERS", "two", "valid integer"),
        ("GUNICORN_WORKER_CONNECTIONS", "0", "greater than or equal to 1"),
        ("GUNICORN_MAX_REQUESTS", "-1", "greater than or equal to 0"),
        ("GUNICORN_MAX_REQUESTS_JITTER", "-1", "greater than or equal to 0"),
        ("GUNICORN_TIMEOUT", "-1", "greater than or equal to 0"),
        ("GUNICORN_GRACEFUL_TIMEOUT", "0", "greater than or equal to 1"),
        ("GUNICORN_KEEPALIVE", "0", "greater than 0"),
    ],
)
def test_a_bad_value_is_named_with_its_rule(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    name = name if name.startswith("GUNICORN_") else f"KRONOS_{name}"
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError) as caught:
        load_settings()
    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert expected in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"INFERENCE_TIMEOUT": "60"}, r"KRONOS_INFERENCE_TIMEOUT \(60 s\) must be below"),
        ({"REQUEST_TIMEOUT": "75"}, r"\(75 s\) must be below KRONOS_SHUTDOWN_TIMEOUT \(75 s\)"),
        ({"GUNICORN_GRACEFUL_TIMEOUT": "75"}, "must be at least 3 s below GUNICORN_GRACEFUL"),
        (
            {"SHUTDOWN_TIMEOUT": "75", "GUNICORN_GRACEFUL_TIMEOUT": "77"},
            "must be at least 3 s below GUNICORN_",
        ),
        (
            {"MAX_BATCH_ITEMS": "65"},
            r"MAX_BATCH_ITEMS \(65\) must be at most KRONOS_MAX_QUEUE \(64\)",
        ),
        ({"DEFAULT_SAMPLE_COUNT": "65"}, "at most KRONOS_MAX_SAMPLES"),
        ({"BODY_MEMORY_MB": "19"}, "must be at most half of KRONOS_BODY_MEMORY_MB"),
        ({"MAX_DECODE_STEPS": "119"}, r"\(1 x 120\) must be at most KRONOS_MAX_DECODE_STEPS"),
        ({"DEFAULT_TEMPERATURE": "0.0001"}, r"must be 0 \(greedy\) or at least 0.001"),
        (
            {"SERVICE_ACCOUNT_CA_FILE": "/ca.crt"},
            "KRONOS_SERVICE_ACCOUNT_TOKEN_FILE need KRONOS_SERVICE_ACCOUNT_AUDIENCE",
        ),
        (
            {"SERVICE_ACCOUNT_AUDIENCE": "kronos-api", "SERVICE_ACCOUNT_JWKS": "/keys"},
            "are set together: set KRONOS_SERVICE_ACCOUNT_ISSUER too, or none",
        ),
        (
            {"CONTAINER_WHITELIST": "serviceaccount:shop/*"},
            "serviceaccount: entries of KRONOS_CONTAINER_WHITELIST need KRONOS_SERVICE_ACCOUNT_AUD",
        ),
        ({"TOKENIZER_ID": "a/b"}, "KRONOS_TOKENIZER_ID needs KRONOS_MODEL_ID"),
        ({"MODEL_ID": "a/b"}, "KRONOS_MODEL_ID needs KRONOS_TOKENIZER_ID"),
        ({"MODEL_PATH": "/m", "MODEL_ID": "a/b"}, "KRONOS_MODEL_PATH excludes KRONOS_MODEL_ID"),
        ({"MODEL_PATH": "/m", "TOKENIZER_ID": "a/b"}, "KRONOS_MODEL_PATH excludes KRONOS_MODEL_ID"),
    ],
)
def test_settings_that_contradict_each_other(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name if name.startswith("GUNICORN_") else f"KRONOS_{name}", value)
    with pytest.raises(StartupError, match=expected):
        load_settings()


def test_all_bad_values_are_in_one_line_without_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KRONOS_PORT", "secret")
    monkeypatch.setenv("KRONOS_MAX_QUEUE", "secret")
    with pytest.raises(StartupError) as caught:
        load_settings()
    assert [part.split(":")[0] for part in str(caught.value).split("; ")] == [
        "KRONOS_PORT",
        "KRONOS_MAX_QUEUE",
    ]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "sources"),
    [
        ({}, (None, None)),
        ({"MODEL_ID": ""}, (None, None)),
        ({"MODEL_PATH": "/m"}, ("/m/model", "/m/tokenizer")),
        ({"MODEL_ID": "a/b@c", "TOKENIZER_ID": "/d"}, ("a/b@c", "/d")),
        (
            {"MODEL_ID": "NeoQuasar/Kronos-mini@abc"},
            ("NeoQuasar/Kronos-mini@abc", "NeoQuasar/Kronos-Tokenizer-2k"),
        ),
        (
            {"MODEL_ID": "NeoQuasar/Kronos-small"},
            ("NeoQuasar/Kronos-small", "NeoQuasar/Kronos-Tokenizer-base"),
        ),
    ],
)
def test_where_the_checkpoints_are(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    sources: tuple[str | None, str | None],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"KRONOS_{name}", value)
    settings = load_settings()
    assert (settings.model_source, settings.tokenizer_source) == sources


def test_allowed_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = load_settings()
    assert defaults.whitelist == Whitelist(localhost=True)
    assert len(defaults.proxies) == 0
    assert "/health" in defaults.exempt_paths
    assert (defaults.nameservers, defaults.networks) == ((), ())
    monkeypatch.setenv("KRONOS_CONTAINER_WHITELIST", "web, 10.0.0.0/8")
    monkeypatch.setenv("KRONOS_TRUSTED_PROXIES", "nginx")
    monkeypatch.setenv("KRONOS_SECURITY_EXEMPT_PATHS", "none")
    monkeypatch.setenv("KRONOS_DNS_SERVERS", "127.0.0.11")
    monkeypatch.setenv("KRONOS_CONTAINER_NETWORKS", "inner,outer")
    settings = load_settings()
    assert settings.whitelist == Whitelist.parse("web,10.0.0.0/8")
    assert settings.proxies.names == ("nginx",)
    assert settings.exempt_paths == ()
    assert settings.nameservers == (("127.0.0.11", 53),)
    assert settings.networks == ("inner", "outer")


def test_unknown_variables_are_warned_about_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KRONOS_MODLE_ID", "x")
    with capture_logs() as lines:
        load_settings()
    assert [line["message"] for line in lines] == [
        "'KRONOS_MODLE_ID' is not a setting; did you mean KRONOS_MODEL_ID?"
    ]
    assert unknown_variables({"KRONOS_QQQQ\n": "", "kronos_port": "1", "PATH": ""}) == [
        "'KRONOS_QQQQ\\n' is not a setting"
    ]
    assert unknown_variables(["KRONOS_MODEL_DIR"]) == [
        "'KRONOS_MODEL_DIR' is not a setting; did you mean KRONOS_MODELS_DIR?"
    ]


def test_settings_of_the_first_service_are_named_with_ours() -> None:
    lines = unknown_variables({"KRONOS_MODEL_HOST_PATH": "/models", "KRONOS_ENABLE_METRICS": "1"})
    assert lines == [
        "KRONOS_ENABLE_METRICS is a setting of the first service: metrics are always on; "
        "KRONOS_SECURITY_EXEMPT_PATHS opens them to every caller",
        "KRONOS_MODEL_HOST_PATH is a setting of the first service: use KRONOS_MODELS_DIR",
    ]


def test_unknown_names_of_gunicorn_are_warned_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GUNICORN_MAX_REQUEST", "1")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers 2")  # Gunicorn's own command reads it
    monkeypatch.setenv("KRONOS_WORKERS", "2")
    with capture_logs() as lines:
        load_settings()
    assert [line["event"] for line in lines] == ["unknown_setting"] * 2
    assert [line["message"] for line in lines] == [
        "'GUNICORN_MAX_REQUEST' is not a setting; did you mean GUNICORN_MAX_REQUESTS?",
        "'KRONOS_WORKERS' is not a setting; did you mean GUNICORN_WORKERS?",
    ]


def test_a_worker_has_more_time_to_stop_than_the_service_in_it() -> None:
    assert load_settings().stop_timeout == 85
    assert Settings(shutdown_timeout=120.5).stop_timeout == 131
    assert settings_of(GUNICORN_GRACEFUL_TIMEOUT=300).stop_timeout == 300


def test_concurrency() -> None:
    assert load_settings().concurrency == 1000
    assert Settings(limit_concurrency=100).concurrency == 100
    assert settings_of(GUNICORN_WORKER_CONNECTIONS=50).concurrency == 50


def test_password_of_redis_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_REDIS_URL", "redis://:s3cret@redis/0")
    settings = load_settings()
    assert "s3cret" not in f"{settings!r} {settings.model_dump_json()}"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1

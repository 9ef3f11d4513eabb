"""Find words of our own where the field has a word, and phrases that hide their subject.

    python scripts/check_words.py [FILE...]

Without arguments, every text file of the project is read. Prints `file:line: found: say instead`
for each, and exits with 1 if there are any. `docs/glossary.md` has the words to use.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PARTS: Final = (
    *("kronos_api", "tests", "benchmarks", "training", "examples", "docs", "scripts", "deploy"),
    *("monitoring", "deploy.sh", ".ci", ".github", ".env.example", "pyproject.toml"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Dockerfile", "Dockerfile.production"),
    *("docker-compose.yml", "docker-compose.dev.yml"),
)
BINARY: Final = (".safetensors", ".png", ".pyc", ".csv", ".gz", ".zip")
# They name old words on purpose.
ALLOWED: Final = (
    *("scripts/check_words.py", "CHANGELOG.md", "docs/[mM][iI][gG]*"),
    "kronos_api/files/names.py",  # names that data sources use
    "tests/scripts/test_check_words.py",
)
ENGINE: Final = (
    *("kronos_api/engine/*", "kronos_api/batching/*", "kronos_api/model/*"),
    *("kronos_api/predictor.py", "tests/engine/*", "tests/batching/*"),
)
PYTHON: Final = ("*.py",)


class Rule(NamedTuple):
    """What not to say (a regular expression), what to say instead, and in which files."""

    pattern: str
    instead: str
    paths: tuple[str, ...] = ("*",)


RULES: Final = (
    # Phrases
    Rule(r"\banew\b", "again, or a verb: refresh, rebuild"),
    Rule(r"\b(no|some|any|every)body\b", "the subject: caller, client, worker"),
    Rule(r"\bwhoever\b", "the subject: the process that, a caller that"),
    Rule(r"\bunder way\b", "in progress"),
    Rule(r"\b(finds?|found|there is|is) no room\b", "the full thing, with its figures: 64 of 64"),
    Rule(r"\btells? of\b", "reports, covers"),
    Rule(r"[,;] for (it|they) (is|are|has|have)\b", "because it is"),
    Rule(r"\b(is|are|was|were|been) told\b", "receives, knows, is configured with"),
    # Words of the engine
    Rule(r"\bin any company\b|\bcompany\b", "batch-mates; batch invariance", (*ENGINE, "docs/*")),
    Rule(r"\bneighbours?\b", "batch-mates", ENGINE),
    Rule(r"\bkinds? of work\b", "phase: prefill, decode"),
    Rule(r"\b(class )?Memory\b|\bmemory\.(path|fork|length)\b", "KVCache, kv_cache", ENGINE),
    Rule(r"(?<!dot )\bproducts?\b", "GEMM, matmul, linear layer", ENGINE),
    Rule(r"\b[Nn]ormalisers?\b|\battend_both\b", "log-sum-exp (lse), shared-prefix attention"),
    Rule(r"\bshorten\b|\b_?lay_out\b", "rms_norm; pack", ENGINE),
    Rule(r"\blanes?\b", "path cache", ENGINE),
    Rule(r"\bCodec\b", "TokenizerRunner", PYTHON),
    Rule(r"\bclass (Network|Stack)\b", "ModelRunner, Transformer", ENGINE),
    Rule(r"\bchoose\(", "sample()", ENGINE),
    Rule(r"\bOptions\b", "SamplingParams", ENGINE),
    # Words of the service
    Rule(r"\bwalls?\b", "naive datetimes", ("kronos_api/*", "tests/*")),
    Rule(r"\bBreach(es)?\b|\bbreach(es)? of\b", "violation, field error"),
    Rule(r"\b_?[Ss]ettles?\b", "identify, complete, advance", ("kronos_api/*", "tests/*")),
    Rule(r"\b[Ss]trangers?\b", "unlisted clients"),
    Rule(r"\bSurroundings\b", "LocalNetworks, local networks"),
    Rule(r"\b[Tt]all(y|ies)\b|\bVisit\b", "window counter; charge"),
    Rule(r"\bStoreOut\b|\b(store|Redis) (is|was) out\b", "store unavailable"),
    Rule(r"\bdeaf\w*\b", "ignored signals"),
    Rule(r"\b(make|makes|making|made) way\b|\bMAKE_WAY\b", "retire"),
    Rule(r"\bWORN\b|\bworn\b", "recycle requested"),
    Rule(r"\bsigns? of life\b", "heartbeat"),
    Rule(r"\b[Vv]itals\b", "process metrics"),
    Rule(r"\b[Dd]efects?\b", "unhandled exception"),
    Rule(r"\b[Tt]ime stamps?\b", "timestamp"),
    Rule(r"\bclass Folder\b|\bmetrics folder\b", "metrics directory"),
    Rule(r"\bclass Page\b", "WorkerStatus", PYTHON),
)


def texts(names: list[str]) -> Iterator[Path]:
    """The files to read: `names`, or those of the project."""
    for part in names or PARTS:
        path = ROOT / part
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix not in BINARY and "__pycache__" not in file.parts:
                yield file


def hits(path: Path) -> Iterator[str]:
    """One line for each place in `path` where a rule holds."""
    name = path.relative_to(ROOT).as_posix()
    rules = [
        (re.compile(rule.pattern), rule.instead)
        for rule in RULES
        if any(fnmatch(name, glob) for glob in rule.paths)
    ]
    if any(fnmatch(name, glob) for glob in ALLOWED):
        return
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        for pattern, instead in rules:
            if found := pattern.search(line):
                yield f"{name}:{number}: {found[0]}: {instead}"


def main() -> int:
    """Print all hits; 1 if there are any."""
    found = [line for path in texts(sys.argv[1:]) for line in hits(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

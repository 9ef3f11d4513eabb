#!/usr/bin/env bash
# Check the main routes of a running service.
#
#   tests/smoke/test_smoke.sh [--gateway] [--insecure] [BASE_URL]
#
# BASE_URL    default http://127.0.0.1:8000
# --gateway   the service is behind its gateway, which must not publish metrics
# --insecure  accept any TLS certificate
# KRONOS_API_KEY, if set, names the caller by its API key.
#
# Needs curl or Python; inside a container:
#   docker exec -i CONTAINER bash -s -- http://127.0.0.1:8000 <tests/smoke/test_smoke.sh
# The exit status is the number of checks that failed, or 64 for invalid arguments.
# Three forecasts and a bad request count against the caller's rate limit; the script waits for
# the next minute if the limit is reached.
set -uo pipefail

base=http://127.0.0.1:8000
gateway=
insecure=

usage() {
	printf 'smoke: %s\nusage: test_smoke.sh [--gateway] [--insecure] [BASE_URL]\n' "$1" >&2
	exit 64
}

while [ $# -gt 0 ]; do
	case $1 in
	--gateway) gateway=yes ;;
	--insecure) insecure=yes ;;
	-h | --help)
		printf 'usage: test_smoke.sh [--gateway] [--insecure] [BASE_URL]\n'
		exit 0
		;;
	http://* | https://*) base=${1%/} ;;
	*) usage "does not know '$1'" ;;
	esac
	shift
done

# ask METHOD URL [BODY]: the response's body, then its status on a line of its own; without a
# response, the status is 000 and the body the reason
with_curl() {
	# The key is in no argument, which every process on the host could read.
	curl --config <(printf '%s' "${KRONOS_API_KEY:+header = \"Authorization: Bearer $KRONOS_API_KEY\"}") \
		--silent --show-error --max-time 70 --noproxy '*' ${insecure:+--insecure} \
		--request "$1" --header 'Content-Type: application/json' --header "X-Request-ID: $id" \
		${3:+--data-binary "$3"} --write-out '\n%{http_code}' "$2" 2>&1
}

with_python() {
	"$python" - "$id" "$insecure" "$@" <<'PYTHON'
import os
import ssl
import sys
import urllib.error
import urllib.request

request_id, insecure, method, url, *body = sys.argv[1:]
context = ssl._create_unverified_context() if insecure else None
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
)
request = urllib.request.Request(
    url,
    data=body[0].encode() if body else None,
    headers={"Content-Type": "application/json", "X-Request-ID": request_id},
    method=method,
)
if key := os.environ.get("KRONOS_API_KEY"):
    request.add_header("Authorization", f"Bearer {key}")
try:
    try:
        answer = opener.open(request, timeout=70)
    except urllib.error.HTTPError as error:
        answer = error
    print(answer.read().decode(), answer.status, sep="\n")
except OSError as error:
    print(error, "000", sep="\n")
PYTHON
}

curl=$(command -v curl || true)
python=$(command -v python3 || command -v python || true)
[ -n "$curl$python" ] || usage "needs curl or Python"
ask() { if [ -n "$curl" ]; then with_curl "$@"; else with_python "$@"; fi; }

# get PATH, post PATH BODY: `status` and `body` of the answer. A service under load may say that
# it is full, and a caller may have used up its minute: these are asked again for a while.
id=smoke-$$
get() { fetch GET "$@"; }
post() { fetch POST "$@"; }
fetch() {
	local answer began=$SECONDS
	while true; do
		answer=$(ask "$1" "$base$2" "${@:3}")
		status=${answer##*$'\n'}
		body=${answer%$'\n'*}
		case $status:$2 in
		503:/v1/predict/*) [ $((SECONDS - began)) -lt 15 ] || return 0 ;;
		429:*) [ $((SECONDS - began)) -lt 65 ] || return 0 ;;
		*) return 0 ;;
		esac
		sleep 2
	done
}

checks=0
failed=0

# verdict NAME [PROBLEM]: count a check; it passed unless a problem is given
verdict() {
	checks=$((checks + 1))
	if [ -z "${2:-}" ]; then
		printf 'ok    %s\n' "$1"
	else
		printf 'FAIL  %s: %s\n' "$1" "$2"
		failed=$((failed + 1))
	fi
}

# expect STATUS PATTERN...: what is wrong with the answer, if anything
expect() {
	local wanted=$1 pattern
	shift
	if [ "$status" != "$wanted" ]; then
		printf 'status %s instead of %s: %s' "$status" "$wanted" "${body:0:300}"
		if [ "$status" = 403 ]; then
			printf ' (KRONOS_CONTAINER_WHITELIST has to name this caller; from inside: localhost)'
		fi
		return
	fi
	for pattern in "$@"; do
		if ! [[ $body =~ $pattern ]]; then
			printf 'nothing like %s in: %s' "$pattern" "${body:0:300}"
			return
		fi
	done
}

# series ID HORIZON: a request; its candles end at 10:15
series() {
	printf '{"series_id": "%s", "horizon": %d, "freq": "15min",' "$1" "$2"
	printf '"overrides": {"sample_count": 1, "seed": 7}, "candles": {'
	printf '"open": [101.2, 101.9, 101.4], "high": [102.0, 102.1, 101.8],'
	printf '"low": [101.0, 101.3, 100.9], "close": [101.9, 101.4, 101.1],'
	printf '"volume": [120.0, 90.5, 101.0]}, "timestamps": ["2025-06-02T09:45:00Z",'
	printf '"2025-06-02T10:00:00Z", "2025-06-02T10:15:00Z"]}'
}

# forecasts COUNT: what is wrong with the forecast candles in the answer, if anything
forecasts() {
	local number='-?[0-9][-+.0-9eE]*' candle found
	candle="\"timestamp\" *: *\"2025-06-02T1[01]:[0-9]{2}:00Z\""
	for field in open high low close volume amount; do
		candle+=" *, *\"$field\" *: *$number"
	done
	found=$(grep -oE "\{ *$candle *\}" <<<"$body" | wc -l)
	if [ "$((found))" -ne "$1" ]; then
		printf '%d whole candles instead of %d in: %s' "$found" "$1" "${body:0:300}"
	fi
}

printf 'smoke %s\n' "$base"

get /v1/healthz
verdict health "$(expect 200 '"status" *: *"ok"')"

get /v1/readyz
verdict readiness "$(expect 200 '"status" *: *"ok"' '"model_loaded" *: *true')"

post /v1/predict/single "$(series smoke 4)"
problem=$(expect 200 '"series_id" *: *"smoke"' '"2025-06-02T10:30:00Z"' '"2025-06-02T11:15:00Z"')
verdict single "${problem:-$(forecasts 4)}"

post /v1/predict/batch "{\"items\": [$(series smoke-1 2), $(series smoke-2 3)]}"
problem=$(expect 200 '"series_id" *: *"smoke-1".*"series_id" *: *"smoke-2"')
verdict batch "${problem:-$(forecasts 5)}"

post /v1/predict/single '{"candles": '
verdict "error envelope" "$(expect 400 \
	'^\{"error" *: *\{' '"code" *: *"MALFORMED_JSON"' '"message" *: *"' "\"request_id\" *: *\"$id\"")"

get /metrics
if [ -n "$gateway" ]; then
	case $status in
	403 | 404) verdict "metrics kept inside" ;;
	*) verdict "metrics kept inside" "status $status instead of 403 or 404" ;;
	esac
else
	verdict metrics "$(expect 200 'kronos_requests_total\{[^}]*single[^}]*\} [0-9]')"
fi

printf 'smoke %d of %d passed\n' $((checks - failed)) "$checks"
exit "$failed"

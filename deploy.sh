#!/usr/bin/env bash
# Deploy the service on this Docker engine without losing a request.
#
#   ./deploy.sh [prod] [OPTION...]
#   ./deploy.sh dev [--dry-run]
#
# prod (the default) builds an image and replaces the running replicas with it one by one: a new
# one starts, becomes healthy and passes the smoke test before an old one is stopped. If a
# new one fails, the previous ones go on serving. dev starts docker-compose.dev.yml.
#
#   --replicas N      replicas to run; else KRONOS_REPLICAS, else as many as before
#   --image IMAGE     deploy this image instead of building one; pulled if this host lacks it
#   --push REGISTRY   push the image that was built to REGISTRY before it is deployed
#   --rollback        deploy the image that ran before the latest deployment
#   --dry-run         make all checks and print what a deployment would do; leaves nothing but the
#                     builder's cache, which the deployment then uses
#   --status          show replicas, images, versions, health and the latest deployments
#
# The environment and .env are read as compose reads them, COMPOSE_PROJECT_NAME, COMPOSE_FILE and
# COMPOSE_PROFILES included; dev has its own file, and COMPOSE_DEV_PROJECT_NAME (kronos-dev).
# A new replica has DEPLOY_TIMEOUT (300) seconds to become healthy. NO_COLOR keeps the output plain,
# as it is wherever it is not a terminal. The lock and the history are in
# ~/.local/state/kronos-deploy (XDG_STATE_HOME), which belongs to the user who deploys.
#
# Exit status:
#   0  deployed, or already up to date
#   2  invalid arguments
#   3  a check before the deployment failed; nothing was changed
#   4  building, pulling or pushing failed; nothing was changed
#   5  a new replica failed; the previous replicas are running
#   6  another deployment of this project is in progress; nothing was changed
#   7  the previous replicas did not come back after a failure, or the gateway is not running:
#      an operator has to act
#   129, 130, 141, 143  interrupted; the previous replicas are running
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

# shellcheck source=deploy/lib/talk.sh
. deploy/lib/talk.sh
# shellcheck source=deploy/lib/checks.sh
. deploy/lib/checks.sh
# shellcheck source=deploy/lib/state.sh
. deploy/lib/state.sh
# shellcheck source=deploy/lib/images.sh
. deploy/lib/images.sh
# shellcheck source=deploy/lib/replicas.sh
. deploy/lib/replicas.sh
# shellcheck source=deploy/lib/rollout.sh
. deploy/lib/rollout.sh
# shellcheck source=deploy/lib/gateway.sh
. deploy/lib/gateway.sh
# shellcheck source=deploy/lib/status.sh
. deploy/lib/status.sh

service=kronos-api
mode=prod
replicas=
image=
registry=
rollback=
dry_run=
show=
target=

misused() { die 2 "$1; see ./deploy.sh --help"; }

parse() {
	while [ $# -gt 0 ]; do
		case $1 in
		dev | prod) mode=$1 ;;
		--replicas | --image | --push)
			[ -n "${2:-}" ] || misused "$1 needs a value"
			case $1 in --replicas) replicas=$2 ;; --image) image=$2 ;; --push) registry=${2%/} ;; esac
			shift
			;;
		--rollback) rollback=yes ;;
		--dry-run) dry_run=yes ;;
		--status) show=yes ;;
		-h | --help)
			sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' deploy.sh
			exit 0
			;;
		*) misused "unknown argument '$1'" ;;
		esac
		shift
	done
	if [ -n "$replicas" ] && ! [[ $replicas =~ ^[1-9][0-9]{0,2}$ ]]; then
		misused "--replicas must be a number from 1 to 999, not '$replicas'"
	fi
	[ -z "$rollback" ] || [ -z "$image" ] || misused "--rollback and --image exclude each other: both name the image"
	[ -z "$registry" ] || [ -z "$rollback$image" ] || misused "--push cannot be combined with --image or --rollback: it pushes a new build"
	[ "$mode" = prod ] || [ -z "$rollback$image$registry$replicas$show" ] ||
		misused "dev accepts --dry-run alone"
	[ -z "$show" ] || [ -z "$rollback$image$registry$replicas$dry_run" ] ||
		misused "--status cannot be combined with other options"
	[[ ${DEPLOY_TIMEOUT:=300} =~ ^[1-9][0-9]{0,4}$ ]] ||
		misused "DEPLOY_TIMEOUT must be a number of seconds, such as 300, not '$DEPLOY_TIMEOUT'"
}

prod() {
	if [ -n "$show" ]; then say() { :; }; fi
	check_engine
	check_settings_of_compose
	if [ -n "$show" ]; then
		show_status
		return
	fi
	check_room
	[ -n "$dry_run" ] || lock
	recover
	choose_replicas
	choose_image
	check_gateway 3
	check_service
	if [ -n "$dry_run" ]; then
		plan
		return
	fi
	start_others
	roll_out
	start_gateway
}

dev() {
	local id logs
	# .env and the environment name the production project, whose containers dev must not replace.
	export COMPOSE_FILE=docker-compose.dev.yml
	export COMPOSE_PROJECT_NAME=${COMPOSE_DEV_PROJECT_NAME:-kronos-dev}
	logs="docker compose --project-name $COMPOSE_PROJECT_NAME --file $COMPOSE_FILE logs"
	check_engine
	check_names
	compose config --quiet || die 3 "docker compose rejects $COMPOSE_FILE, for the reason above"
	if [ -n "$dry_run" ]; then
		say "would build and start $COMPOSE_FILE"
		return
	fi
	compose up --detach --build --wait --wait-timeout "$DEPLOY_TIMEOUT" ||
		die 5 "the development stack did not become healthy; $logs"
	for id in $(compose ps --quiet "$service"); do
		pass_smoke "$id" || die 5 "the development stack $problem"
	done
	say "the development stack is up; follow its log with: $logs -f"
}

parse "$@"
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
trap finish EXIT
"$mode"

#!/usr/bin/env bash
# Deploy the service on this Docker engine without losing a request.
#
#   ./deploy.sh [prod] [OPTION...]
#   ./deploy.sh dev [--dry-run]
#
# prod (the default) builds an image and replaces the running replicas with it one by one: a new
# one starts, becomes healthy and passes the smoke test before an old one is told to finish. If a
# new one fails, what ran before goes on running. dev starts docker-compose.dev.yml.
#
#   --replicas N      replicas that shall run; else KRONOS_REPLICAS, else as many as before
#   --image IMAGE     deploy this image, pulled if it is not here, instead of building one
#   --push REGISTRY   push the image that was built to REGISTRY before it is deployed
#   --rollback        deploy the image that ran before the latest deployment
#   --dry-run         make all checks, and say what would be done; nothing is left of it but what
#                     the builder keeps, which the deployment then uses
#   --status          show replicas, images, versions, health and the latest deployments
#
# The environment and .env are read as compose reads them, COMPOSE_PROJECT_NAME, COMPOSE_FILE and
# COMPOSE_PROFILES included; dev has its own file, and COMPOSE_DEV_PROJECT_NAME (kronos-dev).
# DEPLOY_TIMEOUT (300) is how many seconds a new replica has to become healthy. NO_COLOR keeps the
# output plain, as it is wherever it is not a terminal. The lock and the history are in
# ~/.local/state/kronos-deploy (XDG_STATE_HOME), which belongs to the user who deploys.
#
# Exit status:
#   0  deployed, or nothing was to be done
#   2  arguments that make no sense
#   3  a check before the deployment failed; nothing was changed
#   4  building, pulling or pushing failed; nothing was changed
#   5  a new replica failed; what ran before is running
#   6  another deployment of this project is in progress; nothing was changed
#   7  what ran before did not come back after a failure, or the gateway does not run: look after it
#   129, 130, 141, 143  interrupted; what ran before is running
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
		*) misused "does not know '$1'" ;;
		esac
		shift
	done
	if [ -n "$replicas" ] && ! [[ $replicas =~ ^[1-9][0-9]{0,2}$ ]]; then
		misused "--replicas takes a number from 1 to 999, not '$replicas'"
	fi
	[ -z "$rollback" ] || [ -z "$image" ] || misused "--rollback and --image are two ways to name an image"
	[ -z "$registry" ] || [ -z "$rollback$image" ] || misused "--push pushes what is built here"
	[ "$mode" = prod ] || [ -z "$rollback$image$registry$replicas$show" ] ||
		misused "dev takes no option but --dry-run"
	[ -z "$show" ] || [ -z "$rollback$image$registry$replicas$dry_run" ] ||
		misused "--status goes with no other option"
	[[ ${DEPLOY_TIMEOUT:=300} =~ ^[1-9][0-9]{0,4}$ ]] ||
		misused "DEPLOY_TIMEOUT is a number of seconds, not '$DEPLOY_TIMEOUT'"
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
	start_beside
	roll_out
	start_gateway
}

dev() {
	local id logs
	# What .env or the environment say is of production, whose containers dev must not take over.
	export COMPOSE_FILE=docker-compose.dev.yml
	export COMPOSE_PROJECT_NAME=${COMPOSE_DEV_PROJECT_NAME:-kronos-dev}
	logs="docker compose --project-name $COMPOSE_PROJECT_NAME --file $COMPOSE_FILE logs"
	check_engine
	check_names
	compose config --quiet || die 3 "docker compose does not accept $COMPOSE_FILE"
	if [ -n "$dry_run" ]; then
		say "would build and start $COMPOSE_FILE"
		return
	fi
	compose up --detach --build --wait --wait-timeout "$DEPLOY_TIMEOUT" ||
		die 5 "the development stack did not become healthy; $logs"
	for id in $(compose ps --quiet "$service"); do
		pass_smoke "$id" || die 5 "the development stack $problem"
	done
	say "the development stack is up: $logs -f shows what it does"
}

parse "$@"
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
trap finish EXIT
"$mode"

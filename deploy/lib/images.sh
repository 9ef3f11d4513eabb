# shellcheck shell=bash
# Which image is deployed. `target` is its id, `named` what it is called; in a dry run that would
# build one, `target` stays empty.

# id_of IMAGE: nothing where there is no such image
id_of() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null || true; }

choose_image() {
	target=
	if [ -n "$rollback" ]; then
		named=$repository:previous
		target=$(id_of "$named")
		[ -n "$target" ] || die 3 "there is no image $named to go back to"
	elif [ -n "$image" ]; then
		named=$image
		target=$(id_of "$named")
		if [ -z "$target" ] && [ -z "$dry_run" ]; then
			docker pull "$named" || die 4 "there is no image $named, here or elsewhere"
			target=$(id_of "$named")
		fi
	else
		build
	fi
	[ -z "$target" ] || say "image $named (${target:7:12})"
}

build() {
	local labels
	if [ -n "$dry_run" ]; then
		named="what scripts/build makes of this tree"
		return
	fi
	if [[ $services == *" kronos-api-gpu "* ]]; then
		scripts/build --cuda --no-audit || die 4 "the image for GPUs was not built; nothing was changed"
	fi
	scripts/build --tag "$repository:new" --no-audit ||
		die 4 "the image was not built; nothing was changed"
	target=$(id_of "$repository:new")
	labels='{{with .Config.Labels}}{{index . "org.opencontainers.image.version"}}'
	labels+='-{{index . "org.opencontainers.image.revision"}}{{end}}'
	named=$repository:$(docker image inspect --format "$labels" "$target")
	docker tag "$target" "$named" || die 4 "the image could not be named $named; nothing was changed"
	docker image rm --no-prune "$repository:new" >/dev/null
	if [ -n "$registry" ]; then
		docker tag "$target" "$registry/$named" ||
			die 4 "the image could not be named $registry/$named; nothing was changed"
		if ! docker push "$registry/$named"; then
			docker image rm --no-prune "$registry/$named" >/dev/null
			die 4 "$registry did not take the image; nothing was changed"
		fi
		say "pushed $registry/$named"
	fi
}

# as_target COMPOSE-ARGUMENTS...: docker compose, for which `:current` is the image to deploy.
# Replicas are made by that name, so that their configuration is the one that compose knows; the
# tag itself moves for good only when all of them run. `output` is what compose said: who took it
# from a subshell would not know, when interrupted, that the tag is lent.
as_target() {
	local before status=0
	before=$(id_of "$reference")
	tag_before=${before:-none}
	docker tag "$target" "$reference" || die 4 "the image could not be named $reference"
	output=$(compose "$@" 2>&1) || status=$?
	untag || die 4 "$reference could not be given back to the image it named before"
	return "$status"
}

# untag: give `:current` back what it named before, if it is lent
untag() {
	case ${tag_before:-} in
	'') ;;
	none) docker image rm --no-prune "$reference" >/dev/null ;;
	*) docker tag "$tag_before" "$reference" || return ;;
	esac
	tag_before=
}

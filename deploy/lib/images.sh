# shellcheck shell=bash
# Which image is deployed. `target` is its id, `named` what it is called.

# id_of IMAGE: nothing where there is no such image
id_of() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null || true; }

# describe ID: its name that does not move, if it has one, and the beginning of its id
describe() {
	local tag name=
	for tag in $(docker image inspect --format '{{join .RepoTags " "}}' "$1" 2>/dev/null); do
		case $tag in
		*:current | *:previous | *:new | *:deploying-from | *:dry-run-*) ;;
		"$repository":*) name=$tag && break ;;
		*) name=$tag ;;
		esac
	done
	printf '%s' "${name:+$name (}${1:7:12}${name:+)}"
}

choose_image() {
	if [ -n "$rollback" ]; then
		target=${interrupted:-$(id_of "$repository:previous")}
		[ -n "$target" ] || die 3 "there is no image $repository:previous to go back to"
		named=$(describe "$target")
	elif [ -n "$image" ]; then
		named=$image
		target=$(id_of "$named")
		if [ -z "$target" ]; then
			[ -z "$dry_run" ] ||
				die 3 "there is no image $named here, and a dry run pulls nothing: docker pull $named"
			docker pull "$named" || die 4 "there is no image $named, here or elsewhere"
			target=$(id_of "$named")
		fi
	else
		build
	fi
	say "image $named (${target:7:12})"
}

# build: in a dry run, too, which needs the image to judge the settings; it is removed at the end
build() {
	local labels result=$repository:new other
	[ -z "$dry_run" ] || result=$repository:dry-run-$$
	if [[ $services == *" kronos-api-gpu "* ]] && [ -z "$dry_run" ]; then
		scripts/build --cuda --no-audit || die 4 "the image for GPUs was not built; nothing was changed"
	fi
	built=$result
	scripts/build --tag "$result" --no-audit || die 4 "the image was not built; nothing was changed"
	target=$(id_of "$result")
	labels='{{with .Config.Labels}}{{index . "org.opencontainers.image.version"}}'
	labels+='-{{index . "org.opencontainers.image.revision"}}{{end}}'
	named=$repository:$(docker image inspect --format "$labels" "$target")
	# The same commit on another base is another image. A tag with a version never names two.
	other=$(id_of "$named")
	[ "${other:-$target}" = "$target" ] || named+=-${target:7:12}
	[ -z "$dry_run" ] || return 0
	docker tag "$target" "$named" || die 4 "the image could not be named $named; nothing was changed"
	remove_built
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

# remove_built: the name that a build gave to its result, and in a dry run with it the image
remove_built() {
	[ -z "${built:-}" ] || docker image rm --no-prune "$built" >/dev/null 2>&1 || true
	built=
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

# shellcheck shell=bash
# The image to deploy: `target` is its id, `named` its name.

# id_of IMAGE: empty if this host has no such image
id_of() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null || true; }

# describe ID: its fixed name, if it has one, and the first digits of its id
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
		[ -n "$target" ] || die 3 "nothing to roll back to: image $repository:previous does not exist"
		named=$(describe "$target")
	elif [ -n "$image" ]; then
		named=$image
		target=$(id_of "$named")
		if [ -z "$target" ]; then
			[ -z "$dry_run" ] ||
				die 3 "image $named is not on this host, and a dry run pulls nothing: docker pull $named"
			docker pull "$named" || die 4 "image $named not found, neither on this host nor in its registry"
			target=$(id_of "$named")
		fi
	else
		build
	fi
	say "image $named (${target:7:12})"
}

# build: also in a dry run, which checks the settings with the image and removes it at the end
build() {
	local labels result=$repository:new other
	[ -z "$dry_run" ] || result=$repository:dry-run-$$
	if [[ $services == *" kronos-api-gpu "* ]] && [ -z "$dry_run" ]; then
		scripts/build --cuda --no-audit || die 4 "building the image for GPUs failed; nothing was changed"
	fi
	built=$result
	scripts/build --tag "$result" --no-audit || die 4 "building the image failed; nothing was changed"
	target=$(id_of "$result")
	labels='{{with .Config.Labels}}{{index . "org.opencontainers.image.version"}}'
	labels+='-{{index . "org.opencontainers.image.revision"}}{{end}}'
	named=$repository:$(docker image inspect --format "$labels" "$target")
	# The same commit on another base is another image; a tag with a version never names two.
	other=$(id_of "$named")
	[ "${other:-$target}" = "$target" ] || named+=-${target:7:12}
	[ -z "$dry_run" ] || return 0
	docker tag "$target" "$named" || die 4 "docker tag $named failed; nothing was changed"
	remove_built
	if [ -n "$registry" ]; then
		docker tag "$target" "$registry/$named" ||
			die 4 "docker tag $registry/$named failed; nothing was changed"
		if ! docker push "$registry/$named"; then
			docker image rm --no-prune "$registry/$named" >/dev/null
			die 4 "docker push $registry/$named failed; nothing was changed"
		fi
		say "pushed $registry/$named"
	fi
}

# remove_built: remove the temporary tag of a build, and in a dry run the image
remove_built() {
	[ -z "${built:-}" ] || docker image rm --no-prune "$built" >/dev/null 2>&1 || true
	built=
}

# as_target COMPOSE-ARGUMENTS...: docker compose, for which `:current` is the image to deploy.
# Replicas are created by that name, so that compose recognises their configuration; the tag moves
# for good only when all of them run. Sets `output` to what compose printed, without a subshell: an
# interrupted subshell could not give the tag back.
as_target() {
	local before status=0
	before=$(id_of "$reference")
	tag_before=${before:-none}
	docker tag "$target" "$reference" || die 4 "docker tag $reference failed"
	output=$(compose "$@" 2>&1) || status=$?
	untag || die 4 "could not point $reference back at the image it named before"
	return "$status"
}

# untag: point `:current` back at the image it named before, if as_target moved it
untag() {
	case ${tag_before:-} in
	'') ;;
	none) docker image rm --no-prune "$reference" >/dev/null ;;
	*) docker tag "$tag_before" "$reference" || return ;;
	esac
	tag_before=
}

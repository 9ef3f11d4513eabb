# shellcheck shell=bash
# --status: print the present state. Changes nothing and takes no lock.

show_status() {
	local id version format other tag image
	format='{{index .Config.Labels "org.opencontainers.image.version"}}'
	format+=' {{index .Config.Labels "org.opencontainers.image.revision"}}'
	printf 'project %s\n\n%-28s %-10s %-9s %-34s %s\n' \
		"$project" REPLICA HEALTH VERSION COMMIT "IMAGE, STARTED"
	for id in $(ids); do
		version=$(about "$id" "$format") || continue
		image=$(about "$id" '{{.Image}}')
		printf '%-28s %-10s %-9s %-34s %s, %s\n' "$(name_of "$id")" "$(health_of "$id")" \
			"${version%% *}" "${version#* }" "$(describe "$image")" "$(about "$id" '{{.State.StartedAt}}')"
	done
	printf '\n%-28s %-10s %s\n' 'OTHER SERVICE' HEALTH IMAGE
	for other in $services; do
		[ "$other" != "$service" ] || continue
		for id in $(compose ps --all --quiet "$other"); do
			printf '%-28s %-10s %s\n' "$(name_of "$id")" "$(health_of "$id")" \
				"$(about "$id" '{{.Config.Image}}')"
		done
	done
	printf '\n%-28s %s\n' TAG IMAGE
	for tag in "$reference" "$repository:previous" "$(trace)"; do
		image=$(id_of "$tag")
		[ -z "$image" ] || printf '%-28s %s\n' "$tag" "$(describe "$image")"
	done
	[ -z "$(id_of "$(trace)")" ] || warn "the latest deployment was killed: run ./deploy.sh again"
	state_folder
	printf '\nHISTORY (%s)\n' "$state/$project.history"
	tail -n 10 "$state/$project.history" 2>/dev/null || printf 'none yet\n'
}

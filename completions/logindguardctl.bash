# shellcheck shell=bash
# Completion of logindguardctl(1) for bash, by bash alone: bash-completion only loads it.

__logindguardctl_units() {
    systemctl list-units --all --full --no-legend --no-pager --plain \
        --type=scope,service,slice 2>/dev/null | while read -r unit _; do echo "$unit"; done
}

__logindguardctl_sessions() {
    loginctl list-sessions --no-legend --no-pager 2>/dev/null | while read -r session _; do echo "$session"; done
}

__logindguardctl_records() {
    logindguardctl history --no-pager --no-legend --no-ask-password --quiet -n 50 2>/dev/null |
        while read -r line; do
            if [[ $line =~ \ ([0-9a-f]{8})\  ]]; then echo "${BASH_REMATCH[1]}"; fi
        done
}

_logindguardctl() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local words="" verb="" word option
    local -A options=(
        [all]='-h --help --version --no-pager --no-legend -l --full -q --quiet --json -j --no-ask-password'
        [status]='-n --lines --iterations'
        [list]=''
        [history]='-S --since -U --until -u --unit --user -n --lines --iterations -r --reverse'
        [show]='-p --property --value'
        [blame]='--by -S --since -n --lines --iterations'
        [explain]='--files -n --lines --iterations'
        [report]='-S --since --html'
        [inventory]='-n --lines --iterations'
        [metrics]=''
        [top]='-b --batch -n --lines --iterations -d --delay'
        [monitor]='-n --lines --iterations'
        [check]='--threshold'
        [doctor]=''
        [sweep]='--dry-run -w --wait'
        [reclaim]='--dry-run -w --wait'
        [pause]='--for'
        [resume]=''
        [restore]=''
        [config]=''
        [reload]=''
    )
    local verbs='status list history show blame explain report inventory metrics top monitor check doctor sweep reclaim pause resume restore config reload'

    # "--json=p" comes as three words where "=" is one that bash splits at.
    if [[ $current == "=" ]]; then
        option=$previous current=""
    elif [[ $previous == "=" ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    else
        option=$previous
    fi
    case $option in
        --json) words='pretty short off' ;;
        --by) words='unit user trigger slice' ;;
        -u | --unit) words=$(__logindguardctl_units) ;;
        --user) words=$(compgen -u) ;;
        -S | --since | -U | --until) words='today yesterday -1h -1d' ;;
        -p | --property)
            words='id realtime_usec way target target_inode outcome reason mode teardowns dying_before
                dying_after residue_before_bytes freed_bytes stolen_pages mapped_kept_bytes writes shielded
                cpu_usec wall_usec longest_write_usec release_usec context'
            ;;
        --html)
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
            ;;
        --files)
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            return
            ;;
        -n | --lines | --iterations | -d | --delay | --threshold | --for) return ;;
    esac
    if [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi

    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ " $verbs " == *" $word "* ]]; then
            verb=$word
            break
        fi
    done
    if [[ $current == -* ]]; then
        words=${options[all]}
        if [[ -n $verb ]]; then
            words+=" ${options[$verb]}"
        else
            words+=" ${options[*]}"
        fi
    else
        case $verb in
            '') words=$verbs ;;
            show) words="$(__logindguardctl_units) $(__logindguardctl_records)" ;;
            reclaim) words="$(__logindguardctl_units) $(__logindguardctl_sessions)" ;;
            sweep | explain | inventory) words='/user.slice /system.slice' ;;
        esac
    fi
    # Unit names may hold backslashes: compgen would read them as quotes.
    mapfile -t COMPREPLY < <(compgen -W "${words//\\/\\\\}" -- "${current//\\/\\\\}")
}

complete -F _logindguardctl logindguardctl

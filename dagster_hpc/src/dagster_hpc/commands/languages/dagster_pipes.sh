# shellcheck shell=bash
# Dagster Pipes for bash, without other programs:
#
#     . "$DAGSTER_HPC_PIPES_SH"
#     dagster_log info "partition $(dagster_context partition_key none)"
#     dagster_materialize rows:int=120 picture:path=out.png note="all is well"
#     dagster_check no_gaps true gaps:int=0
#
# Metadata is NAME=TEXT or NAME:TYPE=VALUE; types are those of Dagster (int, float, bool, path, url,
# md, json, …). -a names another asset than the step's, -v a data version, -s WARN a severity.
# Without Dagster nothing is reported, and the context has its defaults.

# dagster_context NAME [DEFAULT]: prints a value of the context (run_id, partition_key, extras.NAME).
dagster_context() {
    local name value
    if [[ -n ${DAGSTER_HPC_EXCHANGE:-} ]]; then
        while IFS=$'\t' read -r name value; do
            if [[ $(printf '%b' "$name") == "$1" ]]; then
                printf '%b\n' "$value"
                return
            fi
        done <"$DAGSTER_HPC_EXCHANGE/context.tsv"
    fi
    printf '%s\n' "${2-}"
}

# dagster_log LEVEL TEXT
dagster_log() {
    _dagster_message log "{\"level\": $(_dagster_string "$1"), \"message\": $(_dagster_string "$2")}"
}

# dagster_materialize [-a ASSET] [-v DATA_VERSION] [METADATA]…
dagster_materialize() {
    local asset=${DAGSTER_ASSET_KEY-} version=null metadata OPTIND=1 option
    while getopts a:v: option; do
        case $option in
            a) asset=$OPTARG ;;
            v) version=$(_dagster_string "$OPTARG") ;;
            *) return 2 ;;
        esac
    done
    shift $((OPTIND - 1))
    metadata=$(_dagster_metadata "$@") || return
    _dagster_message report_asset_materialization "{\"asset_key\": $(_dagster_string "$asset"), \
\"data_version\": $version, \"metadata\": $metadata}"
}

# dagster_check [-a ASSET] [-s ERROR|WARN] NAME true|false [METADATA]…
dagster_check() {
    local asset=${DAGSTER_ASSET_KEY-} severity=ERROR name passed metadata OPTIND=1 option
    while getopts a:s: option; do
        case $option in
            a) asset=$OPTARG ;;
            s) severity=$OPTARG ;;
            *) return 2 ;;
        esac
    done
    shift $((OPTIND - 1))
    name=$1 passed=$2
    shift 2
    metadata=$(_dagster_metadata "$@") || return
    _dagster_message report_asset_check "{\"asset_key\": $(_dagster_string "$asset"), \
\"check_name\": $(_dagster_string "$name"), \"passed\": $passed, \
\"severity\": $(_dagster_string "$severity"), \"metadata\": $metadata}"
}

_dagster_message() {
    [[ -n ${DAGSTER_HPC_EXCHANGE:-} ]] || return 0
    # One line in one piece: others may write to the same file.
    printf '{"__dagster_pipes_version": "0.1", "method": "%s", "params": %s}\n' "$1" "$2" \
        >>"$DAGSTER_HPC_EXCHANGE/messages.jsonl"
}

_dagster_metadata() {
    local pair name type value separator='' all=''
    for pair; do
        name=${pair%%=*} value=${pair#*=} type=text
        if [[ $pair != *=* ]]; then
            printf 'dagster_pipes.sh: metadata is NAME=VALUE, not %s\n' "$pair" >&2
            return 2
        fi
        if [[ $name == *:* ]]; then
            type=${name##*:} name=${name%:*}
        fi
        case $type in
            int | float | bool | json) value=${value//$'\n'/ } ;;
            *) value=$(_dagster_string "$value") ;;
        esac
        all+="$separator$(_dagster_string "$name"): {\"raw_value\": $value, \"type\": \"$type\"}"
        separator=', '
    done
    printf '{%s}' "$all"
}

# A text as JSON has it.
_dagster_string() {
    local text=$1 number character escaped
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    text=${text//$'\t'/\\t}
    if [[ $text == *[[:cntrl:]]* ]]; then
        for ((number = 1; number < 32; number++)); do
            printf -v escaped '%03o' "$number"
            printf -v character '%b' "\\0$escaped"
            printf -v escaped '\\u%04x' "$number"
            text=${text//"$character"/"$escaped"}
        done
    fi
    printf '"%s"' "$text"
}

_dagster_message opened '{"extras": {}}'

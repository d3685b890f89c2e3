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
#
# There is no subshell in what reports: it has no traps, and a signal to all processes of the job would
# end it in the middle of a report.

# dagster_context NAME [DEFAULT]: prints a value of the context (run_id, partition_key, extras.NAME).
dagster_context() {
    local name value plain
    if [[ -n ${DAGSTER_HPC_EXCHANGE:-} ]]; then
        while IFS=$'\t' read -r name value; do
            printf -v plain '%b' "$name"
            if [[ $plain == "$1" ]]; then
                printf '%b\n' "$value"
                return
            fi
        done <"$DAGSTER_HPC_EXCHANGE/context.tsv"
    fi
    printf '%s\n' "${2-}"
}

# dagster_log LEVEL TEXT
dagster_log() {
    local level message
    _dagster_string level "$1"
    _dagster_string message "$2"
    _dagster_message log "{\"level\": $level, \"message\": $message}"
}

# dagster_materialize [-a ASSET] [-v DATA_VERSION] [METADATA]…
dagster_materialize() {
    local asset=${DAGSTER_ASSET_KEY-} version=null metadata OPTIND=1 option
    while getopts a:v: option; do
        case $option in
            a) asset=$OPTARG ;;
            v) _dagster_string version "$OPTARG" ;;
            *) return 2 ;;
        esac
    done
    shift $((OPTIND - 1))
    _dagster_metadata metadata "$@" || return
    _dagster_string asset "$asset"
    _dagster_message report_asset_materialization "{\"asset_key\": $asset, \
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
    _dagster_metadata metadata "$@" || return
    _dagster_string asset "$asset"
    _dagster_string name "$name"
    _dagster_string severity "$severity"
    _dagster_message report_asset_check "{\"asset_key\": $asset, \"check_name\": $name, \
\"passed\": $passed, \"severity\": $severity, \"metadata\": $metadata}"
}

_dagster_message() {
    [[ -n ${DAGSTER_HPC_EXCHANGE:-} ]] || return 0
    # One line in one piece: others may write to the same file.
    printf '{"__dagster_pipes_version": "0.1", "method": "%s", "params": %s}\n' "$1" "$2" \
        >>"$DAGSTER_HPC_EXCHANGE/messages.jsonl"
}

# Sets the variable of this name to metadata as JSON has it.
_dagster_metadata() {
    local _pair _name _type _value _separator='' _all=''
    for _pair in "${@:2}"; do
        _name=${_pair%%=*} _value=${_pair#*=} _type=text
        if [[ $_pair != *=* ]]; then
            printf 'dagster_pipes.sh: metadata is NAME=VALUE, not %s\n' "$_pair" >&2
            return 2
        fi
        if [[ $_name == *:* ]]; then
            _type=${_name##*:} _name=${_name%:*}
        fi
        case $_type in
            int | float | bool | json) _value=${_value//$'\n'/ } ;;
            *) _dagster_string _value "$_value" ;;
        esac
        _dagster_string _name "$_name"
        _all+="$_separator$_name: {\"raw_value\": $_value, \"type\": \"$_type\"}"
        _separator=', '
    done
    printf -v "$1" '{%s}' "$_all"
}

# Sets the variable of this name to a text as JSON has it.
_dagster_string() {
    local __text=$2 __number __character __escaped
    __text=${__text//\\/\\\\}
    __text=${__text//\"/\\\"}
    __text=${__text//$'\n'/\\n}
    __text=${__text//$'\t'/\\t}
    if [[ $__text == *[[:cntrl:]]* ]]; then
        for ((__number = 1; __number < 32; __number++)); do
            printf -v __escaped '%03o' "$__number"
            printf -v __character '%b' "\\0$__escaped"
            printf -v __escaped '\\u%04x' "$__number"
            __text=${__text//"$__character"/"$__escaped"}
        done
    fi
    printf -v "$1" '"%s"' "$__text"
}

_dagster_message opened '{"extras": {}}'

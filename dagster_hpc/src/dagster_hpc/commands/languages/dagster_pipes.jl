# Dagster Pipes for Julia, without packages: include(ENV["DAGSTER_HPC_PIPES_JL"])
#
#   dagster_log("info", "partition $(dagster_context("partition_key", "none"))")
#   dagster_materialize(Dict("rows" => 120, "picture" => ("path", "out.png")))
#   dagster_check("no_gaps", true, Dict("gaps" => 0))
#
# Metadata that is a pair of texts has the type that the first one names (path, url, md). Without
# Dagster nothing is reported, and the context has its defaults.

function dagster_context(name, default = nothing)
    haskey(ENV, "DAGSTER_HPC_EXCHANGE") || return default
    for line in eachline(joinpath(ENV["DAGSTER_HPC_EXCHANGE"], "context.tsv"))
        key, value = split(line, '\t', limit = 2)
        unescape_string(key) == name && return unescape_string(value)
    end
    return default
end

dagster_log(level, message) = _dagster_message("log", "level" => level, "message" => message)

function dagster_materialize(metadata = Dict(); asset = get(ENV, "DAGSTER_ASSET_KEY", ""),
                             data_version = nothing)
    _dagster_message("report_asset_materialization", "asset_key" => asset,
                     "data_version" => data_version, "metadata" => _dagster_metadata(metadata))
end

function dagster_check(name, passed, metadata = Dict(); severity = "ERROR",
                       asset = get(ENV, "DAGSTER_ASSET_KEY", ""))
    _dagster_message("report_asset_check", "asset_key" => asset, "check_name" => name,
                     "passed" => passed, "severity" => severity,
                     "metadata" => _dagster_metadata(metadata))
end

function _dagster_message(method, params...)
    haskey(ENV, "DAGSTER_HPC_EXCHANGE") || return
    message = Dict("__dagster_pipes_version" => "0.1", "method" => method, "params" => Dict(params))
    open(joinpath(ENV["DAGSTER_HPC_EXCHANGE"], "messages.jsonl"), "a") do file
        write(file, _dagster_json(message) * "\n")
    end
end

_dagster_metadata(values) = Dict(string(name) => _dagster_value(value) for (name, value) in values)
_dagster_value(value::Tuple) = Dict("type" => value[1], "raw_value" => value[2])
_dagster_value(value::Bool) = Dict("type" => "bool", "raw_value" => value)
_dagster_value(value::Integer) = Dict("type" => "int", "raw_value" => value)
_dagster_value(value::Real) = Dict("type" => "float", "raw_value" => value)
_dagster_value(value) = Dict("type" => "text", "raw_value" => string(value))

_dagster_json(value::AbstractDict) =
    "{" * join(("$(_dagster_json(string(k))): $(_dagster_json(v))" for (k, v) in value), ", ") * "}"
_dagster_json(value::Union{Bool,Real}) = string(value)
_dagster_json(::Nothing) = "null"
function _dagster_json(value::AbstractString)
    escaped = replace(value, "\\" => "\\\\", "\"" => "\\\"", "\n" => "\\n", "\r" => "\\r", "\t" => "\\t")
    return "\"" * replace(escaped, r"[[:cntrl:]]" => " ") * "\""
end

_dagster_message("opened", "extras" => Dict{String,String}())

# Dagster Pipes for R, without packages: source(Sys.getenv("DAGSTER_HPC_PIPES_R"))
#
#   dagster_log("info", paste("partition", dagster_context("partition_key", "none")))
#   dagster_materialize(list(rows = 120L, mean = 0.5, picture = c(path = "out.png")))
#   dagster_check("no_gaps", TRUE, list(gaps = 0L))
#
# Metadata that is a named text has the type of its name (path, url, md, json). Without Dagster
# nothing is reported, and the context has its defaults.

dagster_context <- function(name, default = NULL) {
  exchange <- Sys.getenv("DAGSTER_HPC_EXCHANGE")
  if (!nzchar(exchange)) return(default)
  lines <- strsplit(readLines(file.path(exchange, "context.tsv"), encoding = "UTF-8"), "\t")
  for (line in lines) {
    if (.dagster_plain(line[1]) == name) return(.dagster_plain(line[2]))
  }
  default
}

dagster_log <- function(level, message) {
  .dagster_message("log", list(level = level, message = message))
}

dagster_materialize <- function(metadata = list(), asset = Sys.getenv("DAGSTER_ASSET_KEY"),
                                data_version = NULL) {
  .dagster_message("report_asset_materialization", list(
    asset_key = asset, data_version = data_version, metadata = .dagster_metadata(metadata)
  ))
}

dagster_check <- function(name, passed, metadata = list(), severity = "ERROR",
                          asset = Sys.getenv("DAGSTER_ASSET_KEY")) {
  .dagster_message("report_asset_check", list(
    asset_key = asset, check_name = name, passed = passed, severity = severity,
    metadata = .dagster_metadata(metadata)
  ))
}

.dagster_message <- function(method, params) {
  exchange <- Sys.getenv("DAGSTER_HPC_EXCHANGE")
  if (!nzchar(exchange)) return(invisible())
  line <- .dagster_json(list("__dagster_pipes_version" = "0.1", method = method, params = params))
  cat(line, "\n", sep = "", file = file.path(exchange, "messages.jsonl"), append = TRUE)
}

.dagster_metadata <- function(values) {
  lapply(values, function(value) {
    type <- names(value)
    if (is.null(type)) {
      type <- if (is.logical(value)) "bool" else if (is.integer(value)) "int" else
        if (is.numeric(value)) "float" else "text"
    }
    list(raw_value = unname(value), type = type)
  })
}

.dagster_json <- function(value) {
  if (is.null(value)) return("null")
  if (is.list(value)) {
    pairs <- vapply(names(value), function(name) {
      paste0(.dagster_json(name), ": ", .dagster_json(value[[name]]))
    }, "")
    return(paste0("{", paste(pairs, collapse = ", "), "}"))
  }
  if (is.na(value)) return("null")
  if (is.logical(value)) return(if (value) "true" else "false")
  if (is.numeric(value)) return(format(value, digits = 17, scientific = -2))
  text <- enc2utf8(value)
  text <- gsub("\\", "\\\\", text, fixed = TRUE)
  text <- gsub("\"", "\\\"", text, fixed = TRUE)
  text <- gsub("\n", "\\n", text, fixed = TRUE)
  text <- gsub("\t", "\\t", text, fixed = TRUE)
  text <- gsub("\r", "\\r", text, fixed = TRUE)
  paste0("\"", gsub("[[:cntrl:]]", " ", text), "\"")
}

.dagster_plain <- function(text) {
  text <- gsub("\\\\", "\001", text, fixed = TRUE)
  text <- gsub("\\n", "\n", text, fixed = TRUE)
  text <- gsub("\\r", "\r", text, fixed = TRUE)
  text <- gsub("\\t", "\t", text, fixed = TRUE)
  gsub("\001", "\\", text, fixed = TRUE)
}

.dagster_message("opened", list(extras = structure(list(), names = character())))

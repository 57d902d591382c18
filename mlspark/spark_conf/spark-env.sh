#!/usr/bin/env bash
# Sourced by spark-submit, and by Python when it starts Spark, before Java runs: standard error is left to the job.
#
# Ivy reports on spark.jars.packages at every start, and Java on the incubator module that Spark asks for. Neither has a
# switch, so their lines are taken out here: those of a resolution that went well. What goes wrong is printed as ever.
# Ctrl-C does not end it: what a job says then is worth saying. MLSPARK_VERBOSE=1 shows everything.
if [ -z "${MLSPARK_VERBOSE:-}" ]; then
    exec 2> >(trap "" INT; exec grep --line-buffered -v -E \
        -e '^:: (loading settings|resolving dependencies|resolution report|retrieving) ::' \
        -e '^(Ivy Default Cache set to|The jars for the packages stored in): ' \
        -e '^[^ ]+#[^ ]+ added as a dependency$' \
        -e '^\s+(confs: \[default\]|found \S+ in \S+|:: (modules in use|evicted modules):|\S+ (from \S+ in|by \[.*\] in) \[default\])' \
        -e '^\s+(-{10,}|\|.*\|)$' \
        -e '^\s+[0-9]+ artifacts copied, [0-9]+ already retrieved' \
        -e '^(downloading https?://|\s+\[SUCCESSFUL \] )' \
        -e '^(Setting default log level to |To adjust logging level use sc\.setLogLevel)' \
        -e '^WARNING: Using incubator modules: ' >&2)
fi


# Java has two compilers, and where a job has few rows to read the second takes more time than all the rest. Only the stages'
# jobs are asked about, as they name what they read. spark.driver.extraJavaOptions counts over what is said here.
SPARK_LAUNCHER_OPTS="-XX:TieredStopAtLevel=1 ${SPARK_LAUNCHER_OPTS:-}"
if [[ " $* " == *.py\ *--config* ]]; then
    mlspark_java=$("${PYSPARK_DRIVER_PYTHON:-${PYSPARK_PYTHON:-python3}}" -m mlspark.commands.java_options "$@" 2>/dev/null)
    SPARK_SUBMIT_OPTS="$mlspark_java ${SPARK_SUBMIT_OPTS:-}"
fi

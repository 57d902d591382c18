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

# Where `make setup` has kept Spark's classes as Java has them in memory, Java maps that file in place of reading and checking
# 10,000 classes. It must not find a folder before them, so the settings' comes after the jars, none of which has a file of
# those names, and any other class path is left as it is. Java passes over a file that is damaged, of other jars or of another
# Java, but dies of one that was cut off (17.0.15: SIGBUS), so its size is in its name. MLSPARK_JAVA_ARCHIVE=no does without.
mlspark_archive=$(cksum <<<"${SPARK_HOME:-}")
mlspark_archive="${XDG_CACHE_HOME:-${HOME:-}/.cache}/mlspark/spark-${mlspark_archive%% *}"
mlspark_java=""
if [ -n "${MLSPARK_WRITES_JAVA_ARCHIVE:-}" ]; then
    mlspark_java="-XX:ArchiveClassesAtExit=$MLSPARK_WRITES_JAVA_ARCHIVE"
elif [ "${MLSPARK_JAVA_ARCHIVE:-}" != no ]; then
    for mlspark_file in "$mlspark_archive"-*.jsa; do
        if [ -O "$mlspark_file" ] && [ -r "$mlspark_file" ] &&
            [ "$mlspark_file" = "$mlspark_archive-$(($(wc -c <"$mlspark_file"))).jsa" ]; then
            mlspark_java="-XX:SharedArchiveFile=$mlspark_file -XX:+VerifySharedSpaces"
        fi
    done
fi
mlspark_path="${SPARK_HOME:-}/jars/*:${SPARK_CONF_DIR:-}/"
if [[ -n $mlspark_java && ${1:-} == org.apache.spark.deploy.SparkSubmit && "$mlspark_archive$mlspark_path" != *[[:space:]]* ]] &&
    [[ ! "$*" =~ extraClassPath|driver-class-path|properties-file ]] &&
    [[ -z "${HADOOP_CONF_DIR:-}${YARN_CONF_DIR:-}${SPARK_DIST_CLASSPATH:-}${SPARK_PREPEND_CLASSES:-}" ]] &&
    ! grep -qs extraClassPath "${SPARK_CONF_DIR:-}/spark-defaults.conf"; then
    SPARK_SUBMIT_OPTS="-cp $mlspark_path $mlspark_java -Xlog:cds*=off ${SPARK_SUBMIT_OPTS:-}"
fi

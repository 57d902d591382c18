#!/usr/bin/env bash
# What Spark on Kubernetes starts its pods with ("driver ...", "executor"); anything else is run as it stands.
set -euo pipefail
# Spark points the variable at what it was submitted with, where none of these settings is.
SPARK_CONF_DIR=$(cd "$(dirname "$0")/../spark-conf" && pwd)
export SPARK_CONF_DIR
case ${1:-} in
  driver)
    shift
    # What it was submitted with goes over the settings of the image.
    exec "$SPARK_HOME/bin/spark-submit" --deploy-mode client --load-spark-defaults \
      --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
      --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" "$@"
    ;;
  executor)
    options=()
    while IFS='=' read -r -d '' name value; do
      [[ $name != SPARK_JAVA_OPT_* ]] || options+=("$value")
    done < <(env -0)
    exec "$JAVA_HOME/bin/java" "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
      -cp "$SPARK_CONF_DIR:$SPARK_HOME/jars/*${SPARK_CLASSPATH:+:$SPARK_CLASSPATH}" \
      org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
      --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
      --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
      --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
  *) exec "$@" ;;
esac

"""A Hive metastore bound to loopback: python -P metastore_server.py PORT_FILE

HiveMetaStore's own main listens on all interfaces, and no setting forbids it. The same few calls, made over Py4J, need
no Java compiler (a JRE has none). The JVM finds hive-site.xml in SPARK_CONF_DIR and ends with this process.
"""

import sys
from pathlib import Path

from pyspark.java_gateway import launch_gateway


def main() -> None:
    port_file = Path(sys.argv[1])
    jvm = launch_gateway().jvm  # type: ignore[no-untyped-call]
    metastore = jvm.org.apache.hadoop.hive.metastore
    transport = jvm.org.apache.thrift.transport
    conf = jvm.org.apache.hadoop.hive.conf.HiveConf()
    handler = metastore.HiveMetaStore.newRetryingHMSHandler(
        metastore.HiveMetaStore.HMSHandler("metastore", conf, False), conf
    )
    handler.init()  # makes the schema and the default database
    listener = jvm.java.net.ServerSocket()
    listener.bind(jvm.java.net.InetSocketAddress("127.0.0.1", 0))
    settings = (
        jvm.org.apache.thrift.server.TThreadPoolServer.Args(transport.TServerSocket(listener))
        .processor(metastore.TSetIpAddressProcessor(handler))
        .transportFactory(transport.TTransportFactory())
        .protocolFactory(jvm.org.apache.thrift.protocol.TBinaryProtocol.Factory())
        .minWorkerThreads(2)
        .maxWorkerThreads(64)
    )
    server = jvm.org.apache.thrift.server.TThreadPoolServer(settings)
    partial = port_file.with_suffix(".partial")
    partial.write_text(str(listener.getLocalPort()))
    partial.rename(port_file)
    server.serve()


if __name__ == "__main__":
    main()

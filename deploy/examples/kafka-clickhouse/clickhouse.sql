-- From Kafka (collector.yaml) to ClickHouse: each message is one OTLP request as JSON, each row of `logs` one record.
-- clickhouse-client --multiquery < clickhouse.sql

CREATE DATABASE IF NOT EXISTS otelbpf;

CREATE TABLE IF NOT EXISTS otelbpf.logs
(
    Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    EventName LowCardinality(String),
    SeverityNumber UInt8,
    Body String CODEC(ZSTD(1)),
    TraceId String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String),
    Namespace LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (EventName, Namespace, ServiceName, Timestamp)
TTL toDateTime(Timestamp) + INTERVAL 14 DAY;

CREATE TABLE IF NOT EXISTS otelbpf.logs_queue (message String)
ENGINE = Kafka
SETTINGS
    kafka_broker_list = 'kafka.observability.svc:9092',
    kafka_topic_list = 'otelbpf-logs',
    kafka_group_name = 'clickhouse-otelbpf',
    kafka_format = 'JSONAsString';

-- OTLP as JSON writes an attribute as {"key": …, "value": {"stringValue": …}}, and 64-bit integers as strings.
CREATE FUNCTION IF NOT EXISTS otlpAttributes AS (attributes) -> mapFromArrays(
    arrayMap(one -> JSONExtractString(one, 'key'), attributes),
    arrayMap(
        one -> if(
            startsWith(JSONExtractKeysAndValuesRaw(one, 'value')[1].2, '"'),
            JSONExtractString(JSONExtractKeysAndValuesRaw(one, 'value')[1].2),
            JSONExtractKeysAndValuesRaw(one, 'value')[1].2
        ),
        attributes
    )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otelbpf.logs_feed TO otelbpf.logs AS
WITH
    otlpAttributes(JSONExtractArrayRaw(resource, 'resource', 'attributes')) AS resource_attributes,
    otlpAttributes(JSONExtractArrayRaw(record, 'attributes')) AS attributes
SELECT
    fromUnixTimestamp64Nano(toInt64(JSONExtractString(record, 'timeUnixNano'))) AS Timestamp,
    JSONExtractString(record, 'eventName') AS EventName,
    JSONExtractUInt(record, 'severityNumber') AS SeverityNumber,
    JSONExtractString(record, 'body', 'stringValue') AS Body,
    JSONExtractString(record, 'traceId') AS TraceId,
    resource_attributes['service.name'] AS ServiceName,
    resource_attributes['k8s.namespace.name'] AS Namespace,
    resource_attributes AS ResourceAttributes,
    attributes AS LogAttributes
FROM otelbpf.logs_queue
ARRAY JOIN JSONExtractArrayRaw(message, 'resourceLogs') AS resource
ARRAY JOIN JSONExtractArrayRaw(resource, 'scopeLogs') AS scope
ARRAY JOIN JSONExtractArrayRaw(scope, 'logRecords') AS record;

-- Which pods ask for names that do not exist?
-- SELECT ResourceAttributes['k8s.pod.name'] AS pod, LogAttributes['dns.question.name'] AS name, count()
-- FROM otelbpf.logs
-- WHERE EventName = 'otelbpf.dns.lookup' AND LogAttributes['otelbpf.dns.response.code'] = 'NXDOMAIN'
--   AND Timestamp > now() - INTERVAL 1 HOUR
-- GROUP BY pod, name ORDER BY count() DESC LIMIT 10

#!/usr/bin/env python3
"""DuckDB and DataFusion + Parquet against the synthetic extended.log of benches/store_sqlite.rs.

    cargo bench --bench store_sqlite -- 1000000 /tmp/records.log
    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install duckdb datafusion pyarrow
    /tmp/venv/bin/python benches/store_compare.py /tmp/records.log

The engines are those of the Rust crates; the Python around them is outside the timed parts, except for handing over
Arrow batches, which copies nothing. Limits: the SQLite figures contain the exactly-once bookkeeping and the turning of
records into rows, these do not; all three ran on the same disk, 1000 records a commit, durable commits.
"""
import os
import shutil
import statistics
import sys
import tempfile
import time

import datafusion
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

BATCH = 1000
COLUMNS = """record_id client_id request_id date_time elapsed_time status size upload download bypassed client_ip username method url
http_referer useragent mime filter_name filtering_reason interface cachecode peercode peer request_host request_tld referer_host
referer_tld range time_profiles user_groups request_profiles application_signatures categories response_profiles
upload_content_types download_content_types profiles node seq timestamp snapshot rule ending connect_us first_byte_us sni tls""".split()
DERIVED = ["date_time", "size", "request_tld", "referer_host", "referer_tld", "range"]
NUMBERS = "client_id request_id elapsed_time status upload download seq connect_us first_byte_us".split()


def load(path):
    types = {name: pa.int64() if name in NUMBERS else pa.string() for name in COLUMNS}
    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(column_names=COLUMNS),
        parse_options=csv.ParseOptions(delimiter="\t"),
        convert_options=csv.ConvertOptions(column_types=types),
    )
    ended = pc.cast(pc.strptime(pc.utf8_slice_codeunits(table["timestamp"], 0, 19), "%Y-%m-%dT%H:%M:%S", "us"), pa.int64())
    table = table.drop_columns(DERIVED + ["timestamp"])
    return table.append_column("ended_us", ended)


# What one report needs: totals, six rankings, the series and the newest rows.
def report(run, where):
    run(f"SELECT count(*), sum(CASE WHEN filter_name <> '-' THEN 1 ELSE 0 END), sum(upload), sum(download) FROM records {where}")
    for column in ["request_host", "username", "categories", "rule", "node"]:
        run(f"SELECT {column}, count(*) AS n, sum(upload + download) FROM records {where} GROUP BY {column} ORDER BY n DESC LIMIT 10")
    blocked = (where + " AND" if where else "WHERE") + " filter_name <> '-'"
    run(f"SELECT request_host, count(*) AS n FROM records {blocked} GROUP BY request_host ORDER BY n DESC LIMIT 10")
    run(f"SELECT (ended_us - 1763600000000000) / 1500000000 AS i, count(*) FROM records {where} GROUP BY 1")
    run(f"SELECT ended_us, seq, url, username, status, rule FROM records {where} ORDER BY ended_us DESC LIMIT 50")


def time_reports(name, run, end):
    questions = {
        "last hour": f"WHERE ended_us >= {end - 3_600_000_000}",
        "last day": f"WHERE ended_us >= {end - 86_400_000_000}",
        "everything": "",
        "everything of one host": "WHERE request_host = 'www1.site1.example.com'",
    }
    for what, where in questions.items():
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            report(run, where)
            taken.append(time.perf_counter() - started)
        print(f"{name}: {what:<28} {statistics.median(taken) * 1000:>9.1f} ms (median of 5)")


def duck(table, folder, end):
    path = os.path.join(folder, "records.duckdb")
    base = duckdb.connect(path)
    base.register("shape", table.slice(0, 0))
    base.execute("CREATE TABLE records AS SELECT * FROM shape")
    spent = 0.0
    for start in range(0, len(table), BATCH):
        base.register("portion", table.slice(start, BATCH))
        started = time.perf_counter()
        base.execute("INSERT INTO records SELECT * FROM portion")
        spent += time.perf_counter() - started
    base.execute("CHECKPOINT")
    print(f"duckdb: ingest {len(table) / spent:.0f} records/s, {os.path.getsize(path) / len(table):.0f} bytes a record")
    time_reports("duckdb", lambda sql: base.execute(sql).fetchall(), end)


def fusion(table, folder, end):
    folder = os.path.join(folder, "parquet")
    os.mkdir(folder)
    spent, batch = 0.0, 65_536  # a file a batch of 1000 would be a thousand files: written larger, acknowledged later
    for number, start in enumerate(range(0, len(table), batch)):
        path = os.path.join(folder, f"{number:06}.parquet")
        started = time.perf_counter()
        pq.write_table(table.slice(start, batch), path, compression="zstd")
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        spent += time.perf_counter() - started
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    print(f"datafusion+parquet: ingest {len(table) / spent:.0f} records/s (files of 65,536), {size / len(table):.0f} bytes a record")
    context = datafusion.SessionContext()
    context.register_parquet("records", folder)
    time_reports("datafusion", lambda sql: context.sql(sql).collect(), end)


def main():
    table = load(sys.argv[1])
    end = pc.max(table["ended_us"]).as_py()
    folder = tempfile.mkdtemp(dir=os.path.dirname(os.path.abspath(sys.argv[1])))
    print(f"{len(table)} records, duckdb {duckdb.__version__}, datafusion {datafusion.__version__}")
    try:
        duck(table, folder, end)
        fusion(table, folder, end)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

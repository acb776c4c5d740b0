#!/usr/bin/env python3
"""Lodging data for the demo, and a steady stream of changes to it.

    traffic.py load              fills the empty tables (tens of thousands of rows)
    traffic.py run --seconds N   bookings made, changed, cancelled; coupons issued, used; points accrued; settlements closed

Several changes per transaction, some rolled back. Ends at once and cleanly on SIGTERM or SIGINT.
"""

import argparse
import datetime
import json
import os
import random
import signal
import threading
import time
import uuid

import psycopg
import pymysql

SURNAMES = ["김", "이", "박", "최", "정", "강", "조", "윤", "장", "임"]
GIVEN_NAMES = ["서연", "민준", "지우", "하은", "도윤", "예준", "수아", "시우", "지호", "유나"]
FOREIGN_NAMES = ["Emma Wilson", "José García", "Zoë Müller", "佐藤 花子", "Liam O'Brien", "Nguyễn Văn An"]
PROPERTIES = [
    ("한옥 스테이 북촌", "서울"), ("Haeundae Ocean View", "부산"), ("제주 돌담집 🌊", "제주"), ("강릉 솔숲 펜션", "강원"),
    ("Gyeongju Royal Hotel", "경북"), ("여수 밤바다 리조트", "전남"), ("Hongdae Guesthouse", "서울"), ("속초 설악 콘도", "강원"),
]  # fmt: skip
REQUESTS = [
    None,
    None,
    "높은 층으로 부탁드려요 🙏",
    "Late arrival, around 23:30",
    "아기 침대 필요합니다",
    'Quiet room, please;\nno "smoking" floor',
]
SERVICES = ["breakfast", "parking", "late_checkout", "pet"]
COUPON_TITLES = ["첫 예약 10% 할인", "Summer Sale", "제주 여행 쿠폰", "Free night on us"]
HOSTS = [(f"H{number:05d}", f"{random.Random(number).choice(PROPERTIES)[0]} {number}") for number in range(400)]

RESERVATIONS, COUPONS, POINTS, PERIODS = 30_000, 10_000, 20_000, 12

stop = threading.Event()


def guest(rnd):
    return rnd.choice(SURNAMES) + rnd.choice(GIVEN_NAMES) if rnd.random() < 0.8 else rnd.choice(FOREIGN_NAMES)


def reservation(rnd):
    name, region = rnd.choice(PROPERTIES)
    check_in = datetime.date(2026, 1, 1) + datetime.timedelta(days=rnd.randrange(600))
    nights = rnd.randrange(1, 8)
    details = {
        "nights": nights,
        "promo": rnd.choice([None, "봄맞이", "EARLY"]),
        "rooms": [{"bed": "queen", "price": rnd.randrange(50, 400) * 1000}],
    }
    return (
        uuid.UUID(int=rnd.getrandbits(128)).hex[:10].upper(), guest(rnd),
        rnd.choice([None, f"+82-10-{rnd.randrange(10_000):04d}-{rnd.randrange(10_000):04d}"]),
        name, region, rnd.choice(["pending", "confirmed"]),
        ",".join(service for service in SERVICES if rnd.random() < 0.3), rnd.randrange(-1, 6), rnd.randrange(1, 7),
        check_in, check_in + datetime.timedelta(days=nights),
        rnd.choice([None, datetime.timedelta(hours=rnd.randrange(14, 24), minutes=rnd.randrange(60))]),
        rnd.randrange(30_000, 2_000_000) + rnd.choice([0, 0.5]), rnd.randrange(2), rnd.choice(REQUESTS),
        rnd.choice([None, json.dumps(details, ensure_ascii=False)]), datetime.datetime.now(),
    )  # fmt: skip


INSERT_RESERVATION = (
    "INSERT INTO reservations (code, guest_name, guest_phone, property_name, region, status, services, channel, adults, "
    "check_in, check_out, arrival_time, amount, is_paid, request, details, created_at) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


def coupon(rnd):
    kind = rnd.choice(["percent", "amount", "free_night"])
    valid = rnd.choice([None, datetime.datetime(2026, 12, 31, 23, 59, 59)])
    # Serials that end in zero bytes are where binary(16) goes wrong.
    serial = rnd.randbytes(15) + b"\0" if rnd.random() < 0.1 else rnd.randbytes(16)
    return (serial, rnd.choice(COUPON_TITLES), kind, rnd.randrange(5, 50), rnd.randrange(100_000), 2026, valid)


INSERT_COUPON = (
    "INSERT INTO coupons (serial, title, kind, discount, minimum_amount, issue_year, valid_until) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s)"
)


def point(rnd):
    member = rnd.randrange(5_000)
    amount = rnd.randrange(-5_000, 20_000)
    return (
        uuid.UUID(int=member), guest(rnd), rnd.choice(["stay", "review", "event", "use"]), amount,
        rnd.randrange(10_000_000) / 100, rnd.sample(["vip", "신규", "a b", 'say "hi"'], rnd.randrange(3)),
        rnd.choice([None, json.dumps({"stay": rnd.randrange(1_000_000), "memo": "리뷰 작성"}, ensure_ascii=False)]),
        rnd.choice([None, datetime.date(2027, rnd.randrange(1, 13), 28)]),
    )  # fmt: skip


INSERT_POINT = (
    "INSERT INTO points (member_id, member_name, reason, points, balance, tags, context, expires_on) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)


def period(number):
    return datetime.date(2026 + number // 12, number % 12 + 1, 1)


def settlement(rnd, host, number):
    return (
        host[0], period(number), host[1], rnd.randrange(1, 200), rnd.randrange(10_000_000_00) / 100,
        rnd.choice([0.1, 0.12, 0.155]), rnd.choice([None, rnd.uniform(1200, 1500)]), rnd.random() < 0.9,
        rnd.choice(["KR", "KOR", "JPN"]), rnd.choice([None, "월말 정산", "wire transfer"]),
        rnd.choice([None, rnd.randbytes(rnd.randrange(40))]),
    )  # fmt: skip


INSERT_SETTLEMENT = (
    "INSERT INTO settlements (host_code, period, host_name, bookings, gross, fee_rate, exchange, is_domestic, country, note, "
    "document) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


def mysql(args):
    return pymysql.connect(
        host="127.0.0.1", port=args.mysql_port, user="app", password="app", database="booking", charset="utf8mb4"
    )


def postgres(args):
    return psycopg.connect(f"postgres://postgres:postgres@127.0.0.1:{args.postgres_port}/loyalty")


def load(args):
    rnd = random.Random(1)
    connection = mysql(args)
    with connection.cursor() as cursor:
        for _ in range(RESERVATIONS // 1000):
            cursor.executemany(INSERT_RESERVATION, [reservation(rnd) for _ in range(1000)])
        for _ in range(COUPONS // 1000):
            cursor.executemany(INSERT_COUPON, [coupon(rnd) for _ in range(1000)])
    connection.commit()
    with postgres(args) as connection, connection.cursor() as cursor:
        cursor.executemany(INSERT_POINT, (point(rnd) for _ in range(POINTS)))
        cursor.executemany(
            INSERT_SETTLEMENT, (settlement(rnd, host, number) for host in HOSTS for number in range(PERIODS))
        )
    print(f"loaded {RESERVATIONS} reservations, {COUPONS} coupons, {POINTS} points, {len(HOSTS) * PERIODS} settlements")


def booking_transaction(cursor, rnd):
    """One visit to the shop; returns how many rows it changed."""
    cursor.execute("SELECT MAX(id) FROM reservations")
    newest = cursor.fetchone()[0] or 1
    # Recent bookings change most, old ones sometimes.
    some_id = max(1, newest - int(rnd.expovariate(1 / 3000)))
    choice = rnd.random()
    if choice < 0.35:  # a booking, often with a coupon
        cursor.execute(INSERT_RESERVATION, reservation(rnd))
        booked = cursor.lastrowid
        used = cursor.execute(
            "UPDATE coupons SET is_used = 1, reservation_id = %s, used_at = NOW(3) WHERE is_used = 0 LIMIT %s",
            (booked, rnd.randrange(3)),
        )
        cursor.execute("UPDATE reservations SET is_paid = b'1', status = 'confirmed' WHERE id = %s", (booked,))
        return 2 + used
    if choice < 0.6:  # changed
        return cursor.execute(
            "UPDATE reservations SET amount = amount + %s, adults = %s, request = %s WHERE id BETWEEN %s AND %s",
            (
                rnd.randrange(-5000, 5000),
                rnd.randrange(1, 7),
                rnd.choice(REQUESTS),
                some_id,
                some_id + rnd.randrange(8),
            ),
        )
    if choice < 0.7:  # stayed
        return cursor.execute(
            "UPDATE reservations SET status = 'checked_out', rating = %s WHERE id = %s",
            (rnd.randrange(11) / 2.2, some_id),
        )
    if choice < 0.8:  # cancelled, its coupon given back
        changed = cursor.execute("UPDATE reservations SET status = 'cancelled' WHERE id = %s", (some_id,))
        return changed + cursor.execute(
            "UPDATE coupons SET is_used = 0, reservation_id = NULL, used_at = NULL WHERE reservation_id = %s",
            (some_id,),
        )
    if choice < 0.85:  # forgotten: the guest asked for it
        return cursor.execute("DELETE FROM reservations WHERE id = %s", (some_id,))
    if choice < 0.86:  # coupons run out
        return cursor.execute("DELETE FROM coupons WHERE is_used = 1 ORDER BY id LIMIT 20")
    return cursor.executemany(INSERT_COUPON, [coupon(rnd) for _ in range(rnd.randrange(1, 6))])


def loyalty_transaction(cursor, rnd):
    choice = rnd.random()
    if choice < 0.6:  # points accrued
        count = rnd.randrange(1, 6)
        for _ in range(count):
            cursor.execute(INSERT_POINT, point(rnd))
        return count
    if choice < 0.75:  # a correction of recent ones
        cursor.execute(
            "UPDATE points SET points = points + 1, balance = balance + 0.01 "
            "WHERE id > (SELECT max(id) FROM points) - %s AND reason <> 'expiry'",
            (rnd.randrange(1, 10),),
        )
        return cursor.rowcount
    if choice < 0.8:  # points expire
        cursor.execute(
            "DELETE FROM points WHERE id IN (SELECT id FROM points ORDER BY id LIMIT %s)", (rnd.randrange(5),)
        )
        return cursor.rowcount
    host, number = rnd.choice(HOSTS), rnd.randrange(PERIODS)
    if choice < 0.95:  # a month is closed, or paid
        cursor.execute(
            "UPDATE settlements SET state = CASE state WHEN 'open' THEN 'closed'::settlement_state ELSE 'paid' END, "
            "fee = round(gross * fee_rate::numeric, 2), closed_at = localtimestamp WHERE host_code = %s AND period >= %s",
            (host[0], period(number)),
        )
        return cursor.rowcount
    # A period moved: the primary key itself changes, if the new one is free.
    cursor.execute(
        "UPDATE settlements SET period = period + 1 WHERE host_code = %s AND period = %s AND NOT EXISTS "
        "(SELECT FROM settlements s WHERE s.host_code = settlements.host_code AND s.period = settlements.period + 1)",
        (host[0], period(number)),
    )
    return cursor.rowcount


def write(connect, transaction, args, changes_per_second, counts, index):
    rnd = random.Random(os.getpid() * 10 + index)
    connection = connect(args)
    began = time.monotonic()
    changes = 0
    while not stop.is_set():
        with connection.cursor() as cursor:
            done = 0
            for _ in range(rnd.randrange(1, 4)):
                done += transaction(cursor, rnd) or 0
        if rnd.random() < 0.03:
            connection.rollback()
        else:
            connection.commit()
            changes += done
            counts[index] = changes
        # Ahead of the wanted pace: wait.
        stop.wait(max(0.0, began + changes / changes_per_second - time.monotonic()))
    connection.close()


def run(args):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    counts = [0, 0]
    writers = [
        threading.Thread(target=write, args=(connect, transaction, args, args.changes_per_second / 2, counts, index))
        for index, (connect, transaction) in enumerate([(mysql, booking_transaction), (postgres, loyalty_transaction)])
    ]
    for writer in writers:
        writer.start()
    deadline = time.monotonic() + args.seconds if args.seconds else None
    while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
        if not all(writer.is_alive() for writer in writers):
            stop.set()
            raise SystemExit("a writer died")
        stop.wait(0.2)
    stop.set()
    for writer in writers:
        writer.join()
    print(f"traffic: {sum(counts)} row changes ({counts[0]} booking, {counts[1]} loyalty)")


def main():
    parser = argparse.ArgumentParser(description="demo data and traffic")
    parser.add_argument("action", choices=["load", "run"])
    parser.add_argument("--seconds", type=float, help="default: until stopped")
    parser.add_argument("--changes-per-second", type=float, default=300)
    parser.add_argument("--mysql-port", type=int, default=13306)
    parser.add_argument("--postgres-port", type=int, default=15432)
    args = parser.parse_args()
    (load if args.action == "load" else run)(args)


if __name__ == "__main__":
    main()

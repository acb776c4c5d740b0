"""What a backlog is made of: tables, and transactions on them. Seeded: every run makes the same ones.

A workload fills its tables, then makes one backlog a round, and says how many row changes that was. SQL that servers speak
differently is asked of the source (`source.is_postgres`).
"""

import random

TRANSACTIONS = 500
ROWS = 1000


class Inserts:
    """500 transactions, each of 1000 new rows of six columns."""

    tables = ["events"]

    def create(self, source):
        columns = "guest INT, room INT, price DECIMAL(12,2), note VARCHAR(60), at_time "
        source.run(f"CREATE TABLE events (id BIGINT PRIMARY KEY, {columns}{source.timestamp})")
        self.rows = 0

    def fill(self, source, first, count):
        """Rows of a range of ids, in one transaction."""
        moment = source.moment("id")
        source.run(f"INSERT INTO events SELECT id, id % 9973, id % 500, id * 0.25, CONCAT('guest of room ', id % 500, ' 예약'), "
                   f"{moment} FROM {source.numbers(first, count)} s")

    def backlog(self, source):
        for _ in range(TRANSACTIONS):
            self.fill(source, self.rows, ROWS)
            self.rows += ROWS
        return TRANSACTIONS * ROWS

    def compare(self, source, lake):
        source.compare(lake, "events")


class Updates(Inserts):
    """500 transactions, each of updates of 1000 rows picked at random, in a table that has ten million."""

    def __init__(self, rows):
        self.size, self.chance = rows, random.Random(7)

    def create(self, source):
        super().create(source)
        for first in range(0, self.size, 100_000):
            self.fill(source, first, min(100_000, self.size - first))

    def backlog(self, source):
        for _ in range(TRANSACTIONS):
            ids = ",".join(map(str, self.chance.sample(range(self.size), ROWS)))
            source.run(f"UPDATE events SET room = room + 1, price = price + 1 WHERE id IN ({ids})")
        return TRANSACTIONS * ROWS

    def compare(self, source, lake):
        source.compare_sums(lake, "events", ["id", "guest", "room", "price", "note", "at_time"])


class Mix:
    """Small transactions on seven tables, in the proportions of TPC-C's: orders of ten lines that take from stock, payments,
    deliveries. 39 row changes in three transactions for each order."""

    ORDERS = 13_000
    LAG = 100
    tables = ["districts", "customers", "stock", "orders", "new_orders", "order_lines", "payments"]

    def create(self, source):
        moment = source.timestamp
        source.run(
            "CREATE TABLE districts (id INT PRIMARY KEY, next_order BIGINT, taken DECIMAL(14,2))",
            "CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(40), balance DECIMAL(12,2), payments INT, data VARCHAR(250))",
            "CREATE TABLE stock (id INT PRIMARY KEY, quantity INT, sold BIGINT, data VARCHAR(60))",
            f"CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INT, carrier INT, line_count INT, entered {moment})",
            "CREATE TABLE new_orders (id BIGINT PRIMARY KEY)",
            f"CREATE TABLE order_lines (order_id BIGINT, line INT, item INT, quantity INT, amount DECIMAL(8,2), delivered {moment} NULL,"
            " info VARCHAR(24), PRIMARY KEY (order_id, line))",
            f"CREATE TABLE payments (id BIGINT PRIMARY KEY, customer INT, amount DECIMAL(8,2), paid {moment}, note VARCHAR(24))",
            f"INSERT INTO districts SELECT id, 1, 0 FROM {source.numbers(1, 10)} s",
            f"INSERT INTO customers SELECT id, CONCAT('guest ', id), -10, 0, REPEAT('preferences ', 20) FROM {source.numbers(1, 30_000)} s",
            f"INSERT INTO stock SELECT id, 100, 0, CONCAT('room and board ', id) FROM {source.numbers(1, 100_000)} s",
        )
        source.procedure("trade", self.body(source))
        self.orders = 0

    def body(self, source):
        take = ("UPDATE stock s SET quantity = s.quantity - l.quantity, sold = s.sold + l.quantity FROM order_lines l"
                " WHERE s.id = l.item AND l.order_id = o" if source.is_postgres else
                "UPDATE order_lines l JOIN stock s ON s.id = l.item SET s.quantity = s.quantity - l.quantity, s.sold = s.sold + l.quantity"
                " WHERE l.order_id = o")
        moment, lag = source.moment("o"), self.LAG
        return [
            [
                "UPDATE districts SET next_order = next_order + 1 WHERE id = 1 + o % 10",
                f"INSERT INTO orders SELECT o, 1 + (o * 7919) % 30000, NULL, 10, {moment}",
                "INSERT INTO new_orders SELECT o",
                "INSERT INTO order_lines SELECT o, id, 1 + (o * 7919 + id * 104729) % 100000, 1 + id % 5, id * 1.25, NULL, 'at the counter'"
                f" FROM {source.numbers(1, 10)} s",
                take,
            ],
            [
                "UPDATE customers SET balance = balance - 12.5, payments = payments + 1 WHERE id = 1 + (o * 31) % 30000",
                "UPDATE districts SET taken = taken + 12.5 WHERE id = 1 + o % 10",
                f"INSERT INTO payments SELECT o, 1 + (o * 31) % 30000, 12.5, {moment}, 'by card'",
            ],
            [
                f"DELETE FROM new_orders WHERE id = o - {lag}",
                f"UPDATE orders SET carrier = 1 + o % 10 WHERE id = o - {lag}",
                f"UPDATE order_lines SET delivered = {moment} WHERE order_id = o - {lag}",
                "UPDATE customers SET balance = balance + 10 WHERE id = 1 + (o * 17) % 30000",
            ],
        ]

    def backlog(self, source):
        source.call("trade", self.orders, self.ORDERS)
        delivered = min(self.ORDERS, max(0, self.orders + self.ORDERS - self.LAG))
        self.orders += self.ORDERS
        # An order and its payment; then a customer, and what there is to deliver.
        return self.ORDERS * (23 + 3 + 1) + delivered * 12

    def compare(self, source, lake):
        for table in self.tables:
            source.compare(lake, table)

"""The old service's tables as its ORM had made them, and rows as it had written them."""

import base64
import os
from collections.abc import Mapping
from string import hexdigits
from typing import Any

import psycopg2
import psycopg2.extras
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from payment_service.adapters.settings_values import legacy_encryption_key

TABLES = """
create schema if not exists "{schema}";
create type "{schema}"."PaymentStatus" as enum
  ('PENDING','PROCESSING','SUCCEEDED','FAILED','CANCELLED','REFUNDED','pending','processing','succeeded');
create table "{schema}".payments (
  id text primary key, "orderId" text not null, "userId" text not null, "paymentMethodId" text,
  status "{schema}"."PaymentStatus" not null default 'pending', "paymentProvider" text not null,
  "providerPaymentId" text unique, amount numeric(10,2) not null, currency text not null default 'USD',
  description varchar(500), metadata jsonb, "processedAt" timestamp(3), "createdAt" timestamp(3) not null default now(),
  "updatedAt" timestamp(3) not null default now());
create index on "{schema}".payments ("orderId");
create table "{schema}".payment_transactions (
  id text primary key, "paymentId" text not null references "{schema}".payments, "transactionType" text not null,
  status text not null, "providerTransactionId" text, amount numeric(10,2) not null,
  currency text not null default 'USD', "providerResponse" jsonb, "processedAt" timestamp(3),
  "createdAt" timestamp(3) not null default now());
create table "{schema}".refunds (
  id text primary key, "paymentId" text not null references "{schema}".payments, "orderId" text not null,
  reason varchar(255), amount numeric(10,2) not null, currency text not null default 'USD', status text not null,
  "providerRefundId" text, metadata jsonb, "processedAt" timestamp(3), "createdAt" timestamp(3) not null default now(),
  "updatedAt" timestamp(3) not null default now());
create table "{schema}".payment_methods (
  id text primary key, "userId" text not null, type text not null, provider text not null, "providerToken" varchar(500),
  last4 text, "cardType" text, "expiryMonth" varchar(2), "expiryYear" varchar(4), "isDefault" boolean not null,
  "createdAt" timestamp(3) not null default now(), "updatedAt" timestamp(3) not null default now());
create table "{schema}".payment_webhooks (
  id text primary key, "paymentId" text, provider text not null, "eventType" varchar(100) not null,
  "providerEventId" text not null unique, payload jsonb not null, status text not null default 'pending', error text,
  "processedAt" timestamp(3), "createdAt" timestamp(3) not null default now());
create table "{schema}".idempotency_keys (
  id text primary key, key text unique, "paymentId" text, "userId" text, "createdAt" timestamp(3),
  "expiresAt" timestamp(3));
create table "{schema}".audit_logs (id text primary key, "eventType" text, success boolean, timestamp timestamp(3));
"""


def cuid(number: int, kind: str = "p") -> str:
    return f"c{kind}{number:023d}"


def encrypted(token: str, secret: str) -> str:
    """As the old service did; `secret`: its ENCRYPTION_KEY, which 64 hexadecimal digits make the key itself."""
    is_key = len(secret) == 64 and all(letter in hexdigits for letter in secret)
    key = bytes.fromhex(secret) if is_key else legacy_encryption_key(secret)
    iv = os.urandom(16)
    sealed = AESGCM(key).encrypt(iv, token.encode(), None)
    return ":".join(base64.b64encode(part).decode() for part in (iv, sealed[-16:], sealed[:-16]))


class LegacyTables:
    def __init__(self, url: str, schema: str = "public") -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        self._schema = schema
        with self._connection.cursor() as cursor:
            cursor.execute(TABLES.replace("{schema}", schema))

    def close(self) -> None:
        self._connection.close()

    def add(self, table: str, **fields: Any) -> None:
        names = ", ".join(f'"{name}"' for name in fields)
        places = ", ".join(["%s"] * len(fields))
        values = [psycopg2.extras.Json(it) if isinstance(it, Mapping) else it for it in fields.values()]
        with self._connection.cursor() as cursor:
            cursor.execute(f'insert into "{self._schema}".{table} ({names}) values ({places})', values)

    def many(self, count: int) -> None:
        """Payments that took money, each of an order of its own."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                f"""insert into "{self._schema}".payments (id, "orderId", "userId", status, "paymentProvider", amount,
                  "providerPaymentId") select 'cp' || lpad(n::text, 23, '0'), 'order-' || n, 'user-1', 'SUCCEEDED',
                  'STRIPE', 10, 'pi_' || n from generate_series(1, %s) n""",
                (count,),
            )

    def payment(self, number: int, order: str, status: str, calls: str = "", refunds: str = "", **more: Any) -> str:
        """`calls` and `refunds` as in tests/core/test_legacy.py."""
        name = cuid(number)
        fields = {
            "id": name, "orderId": order, "userId": "user-1", "status": status, "paymentProvider": "STRIPE",
            "providerPaymentId": f"pi_{number}", "amount": "100.00", "createdAt": "2026-01-01T00:00:00",
            "updatedAt": "2026-01-01T00:00:01", **more,
        }  # fmt: skip
        self.add("payments", **fields)
        for position, call in enumerate(part.split() for part in calls.split(",") if part.strip()):
            self.add(
                "payment_transactions", id=f"{name}t{position}", paymentId=name, transactionType=call[0],
                status=call[1], amount=call[2], providerTransactionId=f"ch_{number}_{position}",
                createdAt=fields["createdAt"],
            )  # fmt: skip
        for position, refund in enumerate(part.split() for part in refunds.split(",") if part.strip()):
            self.add(
                "refunds", id=f"{name}r{position}", paymentId=name, orderId=order, status=refund[0], amount=refund[1],
                providerRefundId=f"re_{number}_{position}", createdAt=fields["createdAt"],
            )  # fmt: skip
        return name

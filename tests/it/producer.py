"""A producer that shares no code with the product: boto3 alone.

Sends COUNT messages in batches of ten, a fifth of them twice and one in a hundred a second time with
other words under the same id. Prints the ids that it changed, one a line.
"""

import json
import random
import sys

import boto3

endpoint, queue_url, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
chance = random.Random(seed)
sqs = boto3.client(
    "sqs",
    endpoint_url=endpoint,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)


def message(number, title):
    return {
        "messageId": f"m-{number:06}",
        "notificationType": ["APP_NOTIFICATION", "PUSH"],
        "recipientId": f"user-{number % 997}",
        "title": title,
        "body": "Your pass expires tomorrow. 내일 만료됩니다.",
        "category": chance.choice(["pass", "inquiry", "notice"]),
        "data": {"number": number},
        "source": "boto3",
    }


to_send = []
changed = []
for number in range(count):
    original = json.dumps(message(number, f"Title {number}"), ensure_ascii=False)
    to_send.append((number, original))
    if chance.random() < 0.20:
        # The same message again, somewhere later, written another way.
        again = json.dumps(json.loads(original), sort_keys=True, indent=1)
        to_send.append((number + chance.random() * 500, again))
    if chance.random() < 0.01:
        other = json.loads(original) | {"title": f"Other words {number}"}
        to_send.append((number + chance.random() * 500, json.dumps(other)))
        changed.append(other["messageId"])

bodies = [body for _, body in sorted(to_send, key=lambda it: it[0])]
for start in range(0, len(bodies), 10):
    entries = [{"Id": str(at), "MessageBody": body} for at, body in enumerate(bodies[start : start + 10])]
    answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
    assert not answer.get("Failed"), answer

print("\n".join(changed))

// The same in Node: a receiver of webhooks that believes only what the library standardwebhooks verifies.
//
//     node webhooks.mjs PORT SECRET

import { createServer } from "node:http";
import { createRequire } from "node:module";

const { Webhook } = createRequire(`${process.env.LEDGER_TEST_NODE_MODULES}/`)("standardwebhooks");
const [port, secret] = process.argv.slice(2);
const webhook = new Webhook(secret);
const verified = [];
const refused = [];

createServer(async (request, response) => {
  const answer = (status, body) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };
  if (request.method === "GET") {
    return answer(200, { verified, refused });
  }
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  try {
    const body = webhook.verify(Buffer.concat(chunks), request.headers);
    verified.push({ id: request.headers["webhook-id"], body });
    answer(200, {});
  } catch (error) {
    refused.push(String(error));
    answer(401, {});
  }
}).listen(Number(port), "127.0.0.1");

// What the conversations over matrix-js-sdk share.
//
// The SDK is taken from node_modules beside this file, else from $HEARTH_JS_DIR or ~/.cache/hearth/js.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

// A step that has not been seen after this time has failed.
const PATIENCE_MS = 20_000;
const DEADLINE_MS = 180_000;
export const PASSWORD = "correct horse battery";

const here = dirname(fileURLToPath(import.meta.url));
const homes = [here, process.env.HEARTH_JS_DIR, join(homedir(), ".cache/hearth/js")].filter(Boolean);
const home = homes.find((dir) => existsSync(join(dir, "node_modules/matrix-js-sdk")));
assert(home, `matrix-js-sdk is in none of ${homes}`);
const module = (path) => import(pathToFileURL(join(home, "node_modules/matrix-js-sdk/lib", path)).href);

// The SDK chats on the console, also of errors that are wanted here; only this script's lines belong there.
const say = console.log.bind(console);
const complain = console.error.bind(console);
export const quiet = () => {};
Object.assign(console, { log: quiet, info: quiet, debug: quiet, trace: quiet, warn: quiet, error: quiet });
export const sdk = await module("index.js");
const { InteractiveAuth } = sdk;

export const step = (text) => say(`js: ${text}`);
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Waits until `seen` gives something, which is the answer.
export async function until(what, seen) {
    const end = Date.now() + PATIENCE_MS;
    for (;;) {
        const found = seen();
        if (found) return found;
        assert(Date.now() < end, `not seen in ${PATIENCE_MS} ms: ${what}`);
        await sleep(20);
    }
}

export async function refused(errcode, status, what, request) {
    const error = await request.then(
        () => assert.fail(`${what} was allowed`),
        (e) => e,
    );
    assert.equal(error.errcode, errcode, `${what}: ${error}`);
    assert.equal(error.httpStatus, status, what);
}

// One logged-in device.
export class Device {
    constructor(baseUrl, login) {
        this.userId = login.user_id;
        this.client = sdk.createClient({
            baseUrl,
            userId: login.user_id,
            deviceId: login.device_id,
            accessToken: login.access_token,
            useAuthorizationHeader: true,
        });
    }

    async start() {
        const synced = new Promise((done, fail) => {
            const listener = (state, _previous, data) => {
                if (state === "PREPARED") done();
                if (state === "ERROR") fail(data?.error ?? new Error("sync failed"));
            };
            this.client.on(sdk.ClientEvent.Sync, listener);
        });
        await this.client.startClient({ initialSyncLimit: 20, pollTimeout: 10_000 });
        await synced;
        return this;
    }

    room(id) {
        return this.client.getRoom(id);
    }

    joined(id) {
        return until(`${this.userId} in ${id}`, () => this.room(id)?.getMyMembership() === "join" && this.room(id));
    }

    // The event with this ID, as soon as /sync brings it (a local echo does not count).
    event(room, id) {
        return until(`event ${id} at ${this.userId}`, () => {
            const event = this.room(room)?.findEventById(id);
            return event && event.status === null && event;
        });
    }
}

// Registers through the SDK's user-interactive authentication.
export async function register(baseUrl, username) {
    const client = sdk.createClient({ baseUrl });
    const body = { username, password: PASSWORD, initial_device_display_name: "first device" };
    const auth = new InteractiveAuth({
        matrixClient: client,
        doRequest: (auth) => client.registerRequest(auth ? { ...body, auth } : body),
        stateUpdated: quiet,
        requestEmailToken: () => assert.fail("no email stage is wanted"),
    });
    return auth.attemptAuth();
}

export async function login(baseUrl, user, password = PASSWORD) {
    const client = sdk.createClient({ baseUrl });
    const { flows } = await client.loginFlows();
    assert(flows.some((flow) => flow.type === "m.login.password"), JSON.stringify(flows));
    const identifier = { type: "m.id.user", user };
    const name = "second device";
    return client.loginRequest({ type: "m.login.password", identifier, password, initial_device_display_name: name });
}

// Runs a conversation and ends the process: with status 0, or with the step that failed.
export async function converse(conversation) {
    const watchdog = setTimeout(() => {
        complain(`the conversation took more than ${DEADLINE_MS} ms`);
        process.exit(1);
    }, DEADLINE_MS);
    try {
        await conversation(process.argv[2]);
    } catch (error) {
        complain(error);
        process.exit(1);
    }
    clearTimeout(watchdog);
    step("the whole conversation was seen by all sides");
    process.exit(0);
}

// What shoppers see and do, sent to a collector as UBI 1.3 events. Guide: docs/browser-events.md
(function () {
  "use strict";
  if (window.querylift) return; // the tag is on the page twice

  const VISIBLE_SHARE = 0.5; // an impression by IAB and MRC: half of the item for a second
  const VISIBLE_MS = 1000;
  const BATCH = 50;
  const BATCH_WAIT_MS = 2000;
  const MAX_BODY_BYTES = 60000; // a page that closes may leave 64 KiB to the browser
  const MAX_QUEUED = 1000;
  const MAX_SEEN = 500;
  const MAX_CLICKED = 100;
  const TIMEOUT_MS = 10000;
  const FIRST_PAUSE_MS = 1000; // doubles with every failure
  const LONGEST_PAUSE_MS = 300000;
  const SESSION_MS = 30 * 60000;
  const CLICK_MS = 24 * 3600000; // how long a click tells where its item was found
  const CLIENT_SECONDS = 365 * 86400;

  const ACTIONS =
    "impression click add_to_cart watch view purchase contact_supplier order pay refund".split(" ");
  const FIELDS = new Map([ // of an event; as an attribute, user_query is data-ql-user-query
    ["query_id", /^.{1,100}$/s],
    ["user_query", /^.{0,4096}$/s],
    ["item_id", /^.{1,256}$/s],
    ["position", /^[1-9]\d{0,8}$/],
    ["order_id", /^.{1,100}$/s],
    ["amount", /^-?\d{1,12}(\.\d+)?$/],
    ["currency", /^[A-Z]{3}$/],
    ["quantity", /^[1-9]\d{0,8}$/],
    ["message", /^.{0,1024}$/s],
    ["message_type", /^.{0,100}$/s],
  ]);
  const NUMBERS = ["position", "amount", "quantity"];
  const IN_RESULTS = ["query_id", "item_id", "position"]; // what impressions and clicks need
  const ITEM = "[data-ql-item-id]";
  const JSON_TYPE = "application/json";

  // Keys of what is stored. Each event has a key of its own: two tabs never write the same one, so
  // no event is lost to a race
  const EVENT = "querylift.event.";
  const SESSION = "querylift.session";
  const CLICKED = "querylift.clicked";
  const SEEN = "querylift.seen";

  const settings = document.currentScript ? document.currentScript.dataset : {};
  const cookie = settings.cookie || "ql_client";
  const shared = storage("localStorage");
  const ofTab = storage("sessionStorage");
  const counts = { accepted: 0, refused: 0, dropped: 0 };
  const warned = new Set();
  const inView = new Map(); // item -> timer of its second, 0 while the tab is hidden
  const sending = new Set(); // keys of the events whose answer is awaited
  const viewport = new IntersectionObserver(onView, { threshold: VISIBLE_SHARE });
  const changes = new MutationObserver(onChange);
  let granted = false;
  let madeClientId = "";
  let countedMs = 0;
  let counter = 0;
  let timer = 0;
  let due = Infinity; // when the timer ends, by performance.now()
  let failures = 0; // in a row
  let notBefore = 0;

  function storage(name) {
    try {
      return window[name] || {};
    } catch (error) {
      return {}; // blocked: what would be stored lives as long as the page
    }
  }

  function read(area, key, otherwise) {
    try {
      return JSON.parse(area[key]) || otherwise;
    } catch (error) {
      return otherwise; // not there
    }
  }

  function write(area, key, value) {
    try {
      area[key] = JSON.stringify(value);
      return true;
    } catch (error) {
      return false; // full
    }
  }

  function warn(about, text) {
    if (!warned.has(about)) console.warn("querylift: " + text);
    warned.add(about);
  }

  // Counts within a millisecond, so that the ids of a page sort as its events happened
  function uuid7(now) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    for (let i = 0; i < 6; i++) bytes[i] = (now / 2 ** (40 - 8 * i)) & 255;
    counter = now === countedMs ? counter + 1 : bytes[7];
    countedMs = now;
    bytes[6] = ((counter >> 8) & 0x0f) | 0x70;
    bytes[7] = counter & 255;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }

  function clientId(now) {
    if (settings.clientId) return settings.clientId;
    const kept = document.cookie.split("; ").find((part) => part.startsWith(cookie + "="));
    if (kept) return kept.slice(cookie.length + 1);
    madeClientId = madeClientId || uuid7(now);
    setCookie(madeClientId, CLIENT_SECONDS);
    return madeClientId;
  }

  function setCookie(value, seconds) {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `${cookie}=${value}; Path=/; Max-Age=${seconds}; SameSite=Lax${secure}`;
  }

  function sessionId(now) {
    const kept = read(shared, SESSION, { at: 0 });
    const id = now - kept.at < SESSION_MS ? kept.id : uuid7(now);
    write(shared, SESSION, { id, at: now });
    return id;
  }

  // Makes an event and queues it; answers its event_id, or null where there is none
  function event(action, fields) {
    if (!granted) return null;
    const given = checked(action, fields || {});
    if (!given) return null;
    const now = Date.now();
    const clicked = read(shared, CLICKED, []);
    if (action === "click") {
      const { item_id, query_id, user_query, position } = given;
      const others = clicked.filter((click) => click.item_id !== item_id);
      others.push({ item_id, at: now, found: { query_id, user_query, position } });
      write(shared, CLICKED, others.slice(-MAX_CLICKED));
    } else if (given.item_id && !given.query_id) {
      // a basket knows the item alone: the last click on it tells which query led there
      const click = clicked.find((each) => each.item_id === given.item_id);
      if (click && now - click.at < CLICK_MS) Object.assign(given, click.found);
    }
    return enqueue(wireEvent(action, given, now));
  }

  function checked(action, fields) {
    if (!ACTIONS.includes(action)) {
      warn("action", `action '${action}', want one of ${ACTIONS}`);
      return null;
    }
    const given = {};
    for (const name of Object.keys(fields)) {
      const value = fields[name];
      if (value === undefined || value === null) continue;
      const wanted = FIELDS.get(name);
      if (!wanted || !wanted.test(value)) {
        const want = wanted || `one of the fields ${Array.from(FIELDS.keys())}`;
        warn(name, `${name} '${String(value).slice(0, 50)}', want ${want}`);
        return null;
      }
      given[name] = NUMBERS.includes(name) ? Number(value) : String(value);
    }
    const needed = ["impression", "click"].includes(action) ? IN_RESULTS : [];
    const lacking = needed.filter((name) => !(name in given));
    if (lacking.length) warn(`${action} ${lacking}`, `${action} without ${lacking}`);
    return lacking.length ? null : given;
  }

  function wireEvent(action, given, now) {
    const { query_id, user_query, item_id, position, message, message_type, ...commerce } = given;
    return {
      event_id: uuid7(now),
      action_name: action,
      timestamp: new Date(now).toISOString(),
      application: settings.application,
      query_id,
      session_id: sessionId(now),
      client_id: clientId(now),
      user_id: settings.userId,
      message_type,
      message,
      user_query,
      event_attributes: {
        position: { ordinal: position || 0 }, // UBI wants one; 0 is no place among results
        object: item_id && { object_id: item_id },
        commerce: Object.keys(commerce).length ? commerce : undefined,
      },
    };
  }

  function queued() {
    return Object.keys(shared).filter((key) => key.startsWith(EVENT)).sort(); // oldest first
  }

  function waiting() {
    return queued().filter((key) => !sending.has(key));
  }

  function enqueue(made) {
    const key = EVENT + made.event_id;
    const keys = queued();
    while (keys.length >= MAX_QUEUED || !write(shared, key, made)) {
      counts.dropped += 1;
      warn("dropped", "the queue is full: its oldest events are dropped");
      if (!keys.length) return null; // the shop's own data fill the storage
      delete shared[keys.shift()];
    }
    wake(keys.length + 1 < BATCH ? BATCH_WAIT_MS : 0);
    return made.event_id;
  }

  function wake(wait_ms) {
    const now = performance.now();
    due = Math.max(Math.min(due, now + wait_ms), notBefore);
    clearTimeout(timer);
    timer = setTimeout(sendAll, due - now);
  }

  function sendAll() {
    due = Infinity;
    // one tab sends at a time; where there are no locks an event may be sent twice, and counts once
    if (!navigator.locks) return sendInTurn();
    return navigator.locks.request("querylift", { ifAvailable: true }, (lock) => {
      if (lock) return sendInTurn();
      if (queued().length) wake(BATCH_WAIT_MS);
    });
  }

  async function sendInTurn() {
    for (;;) {
      const keys = waiting();
      if (!granted || !keys.length || !(await send(keys))) return;
    }
  }

  // The newest, because those are this page's, and browsers let a closing page send little. When
  // nobody is left to hear the answer, the next page sends them once more, and the collector keeps
  // each event_id once
  function leave() {
    const keys = waiting().slice(-BATCH);
    if (!granted || !keys.length) return;
    if ("keepalive" in Request.prototype) send(keys);
    else beacon(fitting(keys));
  }

  // Older browsers end a fetch with its page. Nobody hears the answer to a beacon, so its events are
  // sent once more by the next page, or by this one if it is shown again
  function beacon(batch) {
    navigator.sendBeacon(settings.endpoint, new Blob([body(batch)], { type: JSON_TYPE }));
    batch.forEach((key) => sending.add(key));
    setTimeout(() => batch.forEach((key) => sending.delete(key)), TIMEOUT_MS);
  }

  // As many events as a request may have
  function fitting(keys) {
    let bytes = 1;
    return keys.slice(0, BATCH).filter((key, index) => {
      bytes += new TextEncoder().encode(shared[key]).length + 1;
      return bytes <= MAX_BODY_BYTES || index === 0;
    });
  }

  function body(keys) {
    return `[${keys.map((key) => shared[key])}]`;
  }

  // Answers whether the collector took a decision
  async function send(keys) {
    const batch = fitting(keys);
    const abort = new AbortController();
    const timeout = setTimeout(() => abort.abort(), TIMEOUT_MS);
    batch.forEach((key) => sending.add(key));
    try {
      const answer = await fetch(settings.endpoint, {
        method: "POST",
        headers: { "content-type": JSON_TYPE },
        body: body(batch),
        credentials: "omit",
        keepalive: true,
        signal: abort.signal,
      });
      if (answer.status >= 500 || answer.status === 429 || answer.status === 408) {
        return pause(1000 * answer.headers.get("retry-after"));
      }
      const said = await answer.text();
      const refused = answer.ok ? JSON.parse(said).refused.length : batch.length;
      const outcome = `refused ${refused} of ${batch.length} events, ${answer.status}: ${said}`;
      if (refused) warn("refused", outcome);
      settle(batch, refused);
      return true;
    } catch (error) {
      return pause(0); // offline, or no answer in time
    } finally {
      clearTimeout(timeout);
      batch.forEach((key) => sending.delete(key));
    }
  }

  function pause(wanted_ms) {
    const pause_ms = FIRST_PAUSE_MS * 2 ** failures * (1 + Math.random());
    failures += 1;
    notBefore = performance.now() + Math.min(Math.max(pause_ms, wanted_ms || 0), LONGEST_PAUSE_MS);
    if (granted) wake(0);
    return false;
  }

  function settle(batch, refused) {
    failures = 0;
    notBefore = 0;
    counts.refused += refused;
    counts.accepted += batch.length - refused;
    batch.forEach((key) => delete shared[key]);
  }

  // An attribute holds for its element and all that is inside it
  function attributes(element) {
    const fields = {};
    for (const name of FIELDS.keys()) {
      const attribute = "data-ql-" + name.replace("_", "-");
      const holder = element.closest(`[${attribute}]`);
      if (holder) fields[name] = holder.getAttribute(attribute);
    }
    return fields;
  }

  function watch(root) {
    const inside = Array.from(root.querySelectorAll(ITEM));
    for (const item of root.matches(ITEM) ? [root, ...inside] : inside) {
      outOfView(item);
      viewport.unobserve(item);
      viewport.observe(item); // reports anew: the element may have got another item
    }
  }

  function onChange(records) {
    for (const { type, target, addedNodes } of records) {
      if (type === "attributes") watch(target);
      addedNodes.forEach((node) => node.nodeType === Node.ELEMENT_NODE && watch(node));
    }
  }

  function onView(entries) {
    for (const { target, isIntersecting, intersectionRatio } of entries) {
      if (!isIntersecting || intersectionRatio < VISIBLE_SHARE) outOfView(target);
      else if (!inView.has(target)) startSecond(target);
    }
  }

  function outOfView(item) {
    clearTimeout(inView.get(item));
    inView.delete(item);
  }

  function startSecond(item) {
    inView.set(item, document.hidden ? 0 : setTimeout(impression, VISIBLE_MS, item));
  }

  function impression(item) {
    const fields = attributes(item);
    const pair = JSON.stringify([fields.query_id, fields.item_id]);
    const seen = read(ofTab, SEEN, []);
    if (seen.includes(pair) || !event("impression", fields)) return;
    write(ofTab, SEEN, [...seen, pair].slice(-MAX_SEEN));
  }

  function onVisibility() {
    inView.forEach((second, item) => {
      clearTimeout(second);
      startSecond(item);
    });
    if (document.hidden) leave();
  }

  function onClick(click) {
    if (click.type === "auxclick" && click.button !== 1) return; // a middle click opens a tab
    const isElement = click.target instanceof Element;
    const doer = isElement && click.target.closest("a[href], area[href], [data-ql-action]");
    if (!granted || !doer) return;
    const action = doer.getAttribute("data-ql-action"); // empty: a link that does not count
    if (action) event(action, attributes(doer));
    else if (action === null && doer.closest(ITEM)) event("click", attributes(doer));
  }

  function consent(isGiven) {
    const objects = navigator.globalPrivacyControl === true || navigator.doNotTrack === "1";
    const isAllowed = !objects || settings.privacySignals === "ignore";
    if (!isGiven) {
      stop();
      forget();
    } else if (isAllowed && settings.endpoint && !granted) start();
  }

  function start() {
    granted = true;
    sessionId(Date.now()); // stored as long as no tab has withdrawn consent
    const attributeFilter = ["data-ql-item-id", "data-ql-query-id"];
    changes.observe(document, { childList: true, subtree: true, attributeFilter });
    watch(document.documentElement);
    wake(BATCH_WAIT_MS); // what earlier pages left
  }

  function stop() {
    granted = false;
    changes.disconnect();
    viewport.disconnect();
    inView.forEach((second) => clearTimeout(second));
    inView.clear();
    clearTimeout(timer);
    due = Infinity;
  }

  function forget() {
    queued().concat(SESSION, CLICKED).forEach((key) => delete shared[key]);
    delete ofTab[SEEN];
    madeClientId = "";
    setCookie("", 0);
  }

  addEventListener("storage", ({ key, newValue }) => {
    const isGone = newValue === null && (key === SESSION || key === null);
    if (granted && isGone) stop(); // consent was withdrawn in another tab
  });
  addEventListener("online", () => {
    notBefore = 0;
    if (granted) wake(0);
  });
  addEventListener("pagehide", leave); // Safari may close a page without hiding it
  document.addEventListener("visibilitychange", onVisibility);
  document.addEventListener("click", onClick, true); // before the page can stop it
  document.addEventListener("auxclick", onClick, true);

  const status = () => ({ granted, queued: queued().length, ...counts });
  window.querylift = { consent, event, status };
  if (!settings.endpoint) warn("endpoint", "the script has no data-endpoint: nothing is sent");
  if (settings.consent === "granted") consent(true);
})();

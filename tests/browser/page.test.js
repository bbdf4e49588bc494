// Stories of the chat page in Chromium, on a real cluster: nginx, Redis and two gateways.
// PARLEY_BIN_DIR names the folder of the built programs.

import { after, afterEach, before, describe } from "node:test";
import { Cluster, pageUrl } from "./cluster.js";
import { People } from "./people.js";
import { accessStories } from "./stories/access.js";
import { applicationStories } from "./stories/application.js";
import { clusterStories } from "./stories/cluster.js";
import { directStories } from "./stories/direct.js";
import { embedStories } from "./stories/embed.js";
import { enduranceStories } from "./stories/endurance.js";
import { exampleStories } from "./stories/examples.js";
import { hostileStories } from "./stories/hostile.js";
import { lookStories } from "./stories/look.js";
import { memoryStories } from "./stories/memory.js";
import { privateStories } from "./stories/private.js";
import { scrollStories } from "./stories/scroll.js";
import { talkStories } from "./stories/talk.js";

const world = { url: pageUrl, cluster: null, people: null };

describe("chat page", { concurrency: false }, () => {
  before(async () => {
    world.cluster = await Cluster.start();
    world.people = await People.start();
  });
  afterEach(() => world.people.leave());
  after(async () => {
    await world.people?.stop();
    await world.cluster?.stop();
  });

  talkStories(world);
  directStories(world);
  applicationStories(world);
  memoryStories(world);
  privateStories(world);
  hostileStories(world);
  exampleStories(world);
  embedStories(world);
  accessStories(world);
  scrollStories(world);
  enduranceStories(world);
  lookStories(world);
  clusterStories(world);
});

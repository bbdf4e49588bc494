/** Waits until `check` returns a true value, and returns it. */
export async function eventually(claim, check, ms = 10_000) {
  const deadline = Date.now() + ms;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${ms} ms: ${claim}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

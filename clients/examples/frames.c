/*
 * A chat client over the binary frames of the TCP port, in MessagePack and without a library.
 *
 *     cc -std=c11 -Wall -Wextra -Werror -O2 -o frames frames.c
 *     ./frames 127.0.0.1 9000 device-1 '#lobby'
 *
 * It registers, joins the room, sends each line of its input and prints each message. The end of the input ends the
 * session. Every length is checked before it is used, and all buffers have a fixed size. It does not resume a lost
 * session: gateway/PROTOCOL.md, "Resuming a session", has what `register` then needs.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { HEADER = 11, PAYLOAD_MAX = 256 * 1024, FRAME_MAX = 16 * 1024 * 1024, GREETING_MAX = 4096 };
enum { REQUEST_MAX = 64 * 1024, LINE_MAX_BYTES = 4096 };
enum { NESTING_MAX = 40, WRITE_SECONDS = 10, FIRST_ANSWER_MS = 30000 };
enum { VERSION_MESSAGEPACK = 2 };

enum type {
    REGISTER = 1, JOIN = 2, SEND = 4, BYE = 15,
    REGISTERED = 257, JOINED = 258, FAILED = 511,
    MESSAGE = 513, GOING_AWAY = 523,
    CLOSING = 769, HEARTBEAT = 770,
};

enum field { ID = 1, TO = 2, FROM = 3, BODY = 4, ROOM = 8, NICK = 9, CODE = 11, HEARTBEAT_MS = 22, TEXT = 51 };

static const uint8_t MAGIC[4] = {0xCA, 0xFE, 0xBA, 0xBE};

static void fail(const char *problem) {
    fprintf(stderr, "! %s\n", problem);
    exit(1);
}

/* Writing: a request is built behind the space for its header, and its length is filled in when it is sent. */

struct request {
    uint8_t bytes[HEADER + REQUEST_MAX];
    size_t length;
};

static void put(struct request *request, const void *bytes, size_t length) {
    if (length > sizeof request->bytes - request->length) fail("the request is too large");
    memcpy(request->bytes + request->length, bytes, length);
    request->length += length;
}

static void put_byte(struct request *request, unsigned byte) {
    uint8_t value = (uint8_t)byte;
    put(request, &value, 1);
}

/* Begins a request. `fields`: their number, at most 15; 0 for an empty payload. */
static void begin(struct request *request, enum type type, unsigned fields) {
    memcpy(request->bytes, MAGIC, sizeof MAGIC);
    request->bytes[4] = VERSION_MESSAGEPACK;
    request->bytes[9] = (uint8_t)((unsigned)type >> 8);
    request->bytes[10] = (uint8_t)type;
    request->length = HEADER;
    if (fields > 0) put_byte(request, 0x80 | fields);
}

static void put_text(struct request *request, enum field field, const char *text, size_t length) {
    if (length > UINT16_MAX) fail("the text is too long");
    put_byte(request, field);
    put_byte(request, 0xDA);
    put_byte(request, (unsigned)(length >> 8));
    put_byte(request, (unsigned)(length & 0xFF));
    put(request, text, length);
}

static void put_id(struct request *request, uint32_t id) {
    uint8_t bytes[] = {ID, 0xCE, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    put(request, bytes, sizeof bytes);
}

static void send_request(int connection, struct request *request) {
    size_t payload = request->length - HEADER, sent = 0;
    for (int byte = 0; byte < 4; byte++) request->bytes[5 + byte] = (uint8_t)(payload >> (24 - 8 * byte));
    while (sent < request->length) {
        ssize_t written = send(connection, request->bytes + sent, request->length - sent, MSG_NOSIGNAL);
        if (written < 0 && errno != EINTR) fail("the connection is lost");
        if (written > 0) sent += (size_t)written;
    }
}

/* Reading: each function moves the start, and a payload that is too short or malformed sets `is_broken`. */

struct reader {
    const uint8_t *at, *end;
    bool is_broken;
};

struct text {
    const uint8_t *bytes;
    size_t length;
};

static const uint8_t *take(struct reader *reader, size_t length) {
    static const uint8_t nothing[8];
    if (reader->is_broken || length > (size_t)(reader->end - reader->at)) {
        reader->is_broken = true;
        return nothing;
    }
    reader->at += length;
    return reader->at - length;
}

static uint64_t big_endian(struct reader *reader, size_t length) {
    const uint8_t *bytes = take(reader, length);
    uint64_t number = 0;
    for (size_t at = 0; !reader->is_broken && at < length; at++) number = number << 8 | bytes[at];
    return number;
}

enum kind { NUMBER, STRING, LIST, MAP, OTHER };

struct value {
    enum kind kind;
    uint64_t number; /* the value, or the number of bytes or items that follow */
};

/* Reads the head of a value. The bytes of numbers and of values of no use here are taken with it. */
static struct value head(struct reader *reader) {
    unsigned first = *take(reader, 1);
    if (first <= 0x7F) return (struct value){NUMBER, first};
    if (first <= 0x8F) return (struct value){MAP, first & 15};
    if (first <= 0x9F) return (struct value){LIST, first & 15};
    if (first <= 0xBF) return (struct value){STRING, first & 31};
    if (first >= 0xE0 || first == 0xC0 || first == 0xC2 || first == 0xC3) return (struct value){OTHER, 0};
    switch (first) {
    case 0xC4: case 0xC5: case 0xC6: /* bytes: the id of a message */
        take(reader, big_endian(reader, (size_t)1 << (first - 0xC4)));
        return (struct value){OTHER, 0};
    case 0xC7: case 0xC8: case 0xC9: /* extensions, in fields of later versions */
        take(reader, big_endian(reader, (size_t)1 << (first - 0xC7)) + 1);
        return (struct value){OTHER, 0};
    case 0xD4: case 0xD5: case 0xD6: case 0xD7: case 0xD8:
        take(reader, ((size_t)1 << (first - 0xD4)) + 1);
        return (struct value){OTHER, 0};
    case 0xCA: case 0xCB: take(reader, first == 0xCA ? 4 : 8); return (struct value){OTHER, 0};
    case 0xCC: case 0xCD: case 0xCE: case 0xCF:
        return (struct value){NUMBER, big_endian(reader, (size_t)1 << (first - 0xCC))};
    case 0xD0: case 0xD1: case 0xD2: case 0xD3:
        take(reader, (size_t)1 << (first - 0xD0)); /* numbers with a sign */
        return (struct value){OTHER, 0};
    case 0xD9: case 0xDA: case 0xDB: return (struct value){STRING, big_endian(reader, (size_t)1 << (first - 0xD9))};
    case 0xDC: case 0xDD: return (struct value){LIST, big_endian(reader, first == 0xDC ? 2 : 4)};
    case 0xDE: case 0xDF: return (struct value){MAP, big_endian(reader, first == 0xDE ? 2 : 4)};
    default: reader->is_broken = true; return (struct value){OTHER, 0};
    }
}

static void skip_rest(struct reader *reader, struct value value, int level) {
    if (level > NESTING_MAX) reader->is_broken = true;
    if (value.kind == STRING) take(reader, value.number);
    if (value.kind != LIST && value.kind != MAP) return;
    uint64_t items = value.kind == MAP ? 2 * value.number : value.number;
    while (items-- > 0 && !reader->is_broken) skip_rest(reader, head(reader), level + 1);
}

/* The fields that this client uses. Absent texts have no bytes. */
struct frame {
    struct text from, body, room, code, text;
    uint64_t heartbeat_ms;
};

static struct frame read_fields(struct reader *reader) {
    struct frame frame = {0};
    if (reader->at == reader->end) return frame;
    struct value fields = head(reader);
    if (fields.kind != MAP) reader->is_broken = true;
    while (fields.number-- > 0 && !reader->is_broken) {
        struct value key = head(reader), value = head(reader);
        if (key.kind != NUMBER) reader->is_broken = true;
        struct text *wanted = NULL;
        switch (key.number) {
        case FROM: wanted = &frame.from; break;
        case BODY: wanted = &frame.body; break;
        case ROOM: wanted = &frame.room; break;
        case CODE: wanted = &frame.code; break;
        case TEXT: wanted = &frame.text; break;
        case HEARTBEAT_MS: if (value.kind == NUMBER) frame.heartbeat_ms = value.number; break;
        }
        const uint8_t *start = reader->at;
        skip_rest(reader, value, 0);
        if (wanted && value.kind == STRING && !reader->is_broken) *wanted = (struct text){start, value.number};
    }
    if (reader->at != reader->end) reader->is_broken = true;
    return frame;
}

/* Prints text of others: control characters must not reach a terminal. */
static void print_text(struct text text) {
    for (size_t at = 0; at < text.length; at++) {
        uint8_t byte = text.bytes[at];
        bool is_long_control = byte == 0xC2 && at + 1 < text.length && text.bytes[at + 1] < 0xA0;
        if (is_long_control) at++;
        putchar(is_long_control || byte < 0x20 || byte == 0x7F ? '?' : byte);
    }
}

struct client {
    int connection;
    const char *nick, *room;
    bool is_joined, is_leaving;
    int silence_ms; /* the connection is lost after so long without a frame */
    uint32_t last_id;
    struct request request;
};

static void handle(struct client *client, unsigned type, struct frame frame) {
    switch (type) {
    case REGISTERED:
        if (frame.heartbeat_ms > 0 && frame.heartbeat_ms < 600000) client->silence_ms = (int)frame.heartbeat_ms * 3;
        begin(&client->request, JOIN, 2);
        put_id(&client->request, ++client->last_id);
        put_text(&client->request, ROOM, client->room, strlen(client->room));
        send_request(client->connection, &client->request);
        break;
    case JOINED:
        client->is_joined = true;
        printf("* you are in ");
        print_text(frame.room);
        printf("\n");
        break;
    case MESSAGE:
        printf("<");
        print_text(frame.from);
        printf("> ");
        if (frame.body.bytes) print_text(frame.body); else printf("(not a text)");
        printf("\n");
        break;
    case FAILED:
        printf("! ");
        print_text(frame.code);
        printf(": ");
        print_text(frame.text);
        printf("\n");
        if (!client->is_joined) exit(1);
        break;
    case HEARTBEAT:
        begin(&client->request, HEARTBEAT, 0);
        send_request(client->connection, &client->request);
        break;
    case GOING_AWAY: printf("* the gateway is going away\n"); break;
    case CLOSING:
        printf("* closing: ");
        print_text(frame.code);
        printf("\n");
        break;
    default: break; /* replies and events of no use here, also those of later versions */
    }
    fflush(stdout);
}

/* The bytes that have arrived and are not used yet: at most one frame and the beginning of another. */
struct input {
    uint8_t bytes[HEADER + PAYLOAD_MAX];
    size_t length, skipping;
    bool is_greeted; /* lines of text come before the first frame */
};

static void discard(struct input *input, size_t length) {
    input->length -= length;
    memmove(input->bytes, input->bytes + length, input->length);
}

/* Handles the first frame if it has arrived. Returns false if more bytes are needed. */
static bool handle_first(struct client *client, struct input *input) {
    if (input->skipping > 0) {
        size_t skipped = input->skipping < input->length ? input->skipping : input->length;
        input->skipping -= skipped;
        discard(input, skipped);
    }
    if (!input->is_greeted) {
        size_t at = 0;
        while (at + sizeof MAGIC <= input->length && memcmp(input->bytes + at, MAGIC, sizeof MAGIC)) at++;
        if (at > GREETING_MAX) fail("these are no frames of Parley");
        if (at + sizeof MAGIC > input->length) return false;
        discard(input, at);
        input->is_greeted = true;
    }
    if (input->length < HEADER) return false;
    const uint8_t *header = input->bytes;
    if (memcmp(header, MAGIC, sizeof MAGIC) || header[4] != VERSION_MESSAGEPACK) fail("these are no frames of Parley");
    size_t length = (size_t)header[5] << 24 | (size_t)header[6] << 16 | (size_t)header[7] << 8 | header[8];
    if (length > FRAME_MAX) fail("the server has sent a frame beyond all limits");
    if (length > PAYLOAD_MAX) { /* none that this client asks for */
        input->skipping = HEADER + length;
        return true;
    }
    if (input->length < HEADER + length) return false;
    struct reader reader = {header + HEADER, header + HEADER + length, false};
    struct frame frame = read_fields(&reader);
    if (reader.is_broken) fail("the server has sent a malformed frame");
    handle(client, (unsigned)header[9] << 8 | header[10], frame);
    discard(input, HEADER + length);
    return true;
}

/* Ends the program. A refused connection has its cause in a line of text. */
static void lose_connection(struct input *input) {
    for (size_t start = 0, at = 0; !input->is_greeted && at < input->length; at++) {
        if (input->bytes[at] != '\n') continue;
        if (input->bytes[start] == '!') {
            print_text((struct text){input->bytes + start, at - start});
            printf("\n");
        }
        start = at + 1;
    }
    fflush(stdout);
    fail("the connection is lost");
}

static void send_line(struct client *client, const char *line, size_t length) {
    begin(&client->request, SEND, 3);
    put_id(&client->request, ++client->last_id);
    put_text(&client->request, TO, client->room, strlen(client->room));
    put_text(&client->request, BODY, line, length);
    send_request(client->connection, &client->request);
}

/* Sends the whole lines of the input, and ends the session with it. A longer line is sent in parts. */
static void read_lines(struct client *client) {
    static char line[LINE_MAX_BYTES];
    static size_t length;
    ssize_t got = read(STDIN_FILENO, line + length, sizeof line - length);
    if (got < 0) return;
    length += (size_t)got;
    char *end;
    while ((end = memchr(line, '\n', length)) || length == sizeof line || (got == 0 && length > 0)) {
        size_t used = end ? (size_t)(end - line) + 1 : length;
        if (used > (end ? 1u : 0u)) send_line(client, line, end ? used - 1 : used);
        length -= used;
        memmove(line, line + used, length);
    }
    if (got > 0) return;
    client->is_leaving = true;
    begin(&client->request, BYE, 0);
    send_request(client->connection, &client->request);
}

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hints, &found)) fail("the host is not known");
    int connection = -1;
    for (struct addrinfo *each = found; each && connection < 0; each = each->ai_next) {
        connection = socket(each->ai_family, each->ai_socktype, each->ai_protocol);
        if (connection < 0 || !connect(connection, each->ai_addr, each->ai_addrlen)) continue;
        close(connection);
        connection = -1;
    }
    freeaddrinfo(found);
    if (connection < 0) fail("no connection");
    struct timeval limit = {.tv_sec = WRITE_SECONDS};
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return connection;
}

int main(int count, char **words) {
    static struct client client;
    static struct input input;
    if (count != 5) fail("usage: frames HOST PORT NICK ROOM");
    client.connection = connect_to(words[1], words[2]);
    client.nick = words[3];
    client.room = words[4];
    client.silence_ms = FIRST_ANSWER_MS;
    begin(&client.request, REGISTER, 2);
    put_id(&client.request, ++client.last_id);
    put_text(&client.request, NICK, client.nick, strlen(client.nick));
    send_request(client.connection, &client.request);
    for (;;) {
        bool reads_lines = client.is_joined && !client.is_leaving;
        struct pollfd sources[] = {{client.connection, POLLIN, 0}, {reads_lines ? STDIN_FILENO : -1, POLLIN, 0}};
        int ready = poll(sources, 2, client.silence_ms);
        if (ready < 0 && errno != EINTR) fail("poll failed");
        if (ready == 0) fail("the server is silent");
        if (ready > 0 && sources[0].revents) {
            ssize_t got = recv(client.connection, input.bytes + input.length, sizeof input.bytes - input.length, 0);
            if (got == 0 && client.is_leaving) return 0;
            if (got == 0 || (got < 0 && errno != EINTR)) lose_connection(&input);
            if (got > 0) input.length += (size_t)got;
            while (handle_first(&client, &input)) {}
        }
        if (ready > 0 && sources[1].revents) read_lines(&client);
    }
}

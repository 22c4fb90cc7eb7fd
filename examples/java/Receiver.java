// Receives results as webhooks, each exactly once. Java 11 or later, without a library.
//
//   java Receiver.java PORT INBOX
//
// OTP_WEBHOOK_SECRET is the secret of the configuration, whsec_...; every result becomes a file in INBOX.
import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import java.util.concurrent.Executors;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Receiver {
    static final byte[] KEY =
        Base64.getDecoder().decode(System.getenv("OTP_WEBHOOK_SECRET").substring("whsec_".length()));
    static final long TOLERANCE_S = 300;
    static Path inbox;

    public static void main(String[] arguments) throws IOException {
        inbox = Files.createDirectories(Path.of(arguments[1]));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", Receiver::receive);
        server.start();
    }

    static void receive(HttpExchange exchange) throws IOException {
        try (exchange) {
            byte[] body = exchange.getRequestBody().readAllBytes();
            boolean authentic = isAuthentic(exchange.getRequestHeaders(), body);
            if (authentic && keep(exchange.getRequestHeaders().getFirst("webhook-id"), body)) {
                String result = new String(body, StandardCharsets.UTF_8);
                System.out.println(String.join(" ", field(result, "subject"), field(result, "type"),
                    field(result, "otp"), field(result, "transaction")));
            }
            // A repeat is answered like the first time: else it would come again.
            exchange.sendResponseHeaders(authentic ? 204 : 401, -1);
        }
    }

    /** Standard Webhooks: HMAC-SHA256 over id, timestamp and the body as it came. */
    static boolean isAuthentic(Headers headers, byte[] body) {
        String id = headers.getFirst("webhook-id");
        String timestamp = headers.getFirst("webhook-timestamp");
        String signatures = headers.getFirst("webhook-signature");
        if (id == null || signatures == null || timestamp == null || !timestamp.matches("\\d{1,12}")) return false;
        if (Math.abs(Instant.now().getEpochSecond() - Long.parseLong(timestamp)) > TOLERANCE_S) return false;
        byte[] expected = ("v1," + Base64.getEncoder().encodeToString(hmac(id + "." + timestamp + ".", body)))
            .getBytes(StandardCharsets.UTF_8);
        for (String given : signatures.split(" ")) {
            if (MessageDigest.isEqual(expected, given.getBytes(StandardCharsets.UTF_8))) return true;
        }
        return false;
    }

    static byte[] hmac(String head, byte[] body) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(KEY, "HmacSHA256"));
            mac.update(head.getBytes(StandardCharsets.UTF_8));
            return mac.doFinal(body);
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    /** The effect and the memory of it in one step; in a shop, one transaction of its database. False: it was there. */
    static boolean keep(String id, byte[] body) throws IOException {
        Path temporary = Files.write(Files.createTempFile(inbox, "result", null), body);
        try {
            Files.createLink(inbox.resolve(id + ".json"), temporary);
            return true;
        } catch (FileAlreadyExistsException alreadyKept) {
            return false;
        } finally {
            Files.delete(temporary);
        }
    }

    /** The JDK has no JSON; your program has a library for it. */
    static String field(String object, String name) {
        Matcher found = Pattern.compile("\"" + name + "\":\"?([^\",}]*)").matcher(object);
        if (!found.find()) throw new IllegalStateException("the result has no " + name);
        return found.group(1);
    }
}

// Hands one code to otp-pipeline and waits for the outcome. Java 11 or later, without a library.
//
//   java Enqueue.java ORDER TRANSACTION_REF CODE
//
// OTP_URL is where the intake listens, OTP_API_KEY the key of this client.
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.time.Instant;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class Enqueue {
    static final String INTAKE = System.getenv("OTP_URL") + "/v1/verifications";
    static final HttpClient HTTP = HttpClient.newBuilder()
        .version(HttpClient.Version.HTTP_1_1)
        .connectTimeout(Duration.ofSeconds(5))
        .build();

    public static void main(String[] arguments) throws InterruptedException {
        String order = arguments[0];
        String transactionRef = arguments[1];
        String code = arguments[2];
        String body = "{\"provider\":\"cepta\",\"otp\":" + json(code) + ",\"params\":{\"transactionRef\":"
            + json(transactionRef) + ",\"paymentId\":" + json("PAY-" + order) + ",\"md\":\"merchant_data\"},"
            + "\"metadata\":{\"order\":" + json(order) + "}}";
        // One key for each code that a customer typed: a repeat is the same verification, another code is another one.
        HttpRequest enqueue = request(INTAKE)
            .header("Idempotency-Key", order + "-" + transactionRef + "-1")
            .header("Content-Type", "application/json")
            .POST(BodyPublishers.ofString(body))
            .build();
        Instant giveUpAt = Instant.now().plusSeconds(60);
        String verification = ask(enqueue, giveUpAt);

        // Accepted is not paid: the provider is still asked for proof. The webhook will tell as well.
        while (field(verification, "final").equals("false") && Instant.now().isBefore(giveUpAt)) {
            String news = INTAKE + "/" + field(verification, "id") + "?after=" + field(verification, "sequence");
            verification = ask(request(news).build(), giveUpAt);
        }
        System.out.println(String.join(" ", order, field(verification, "otp"), field(verification, "transaction"),
            field(verification, "nextStep")));
    }

    static HttpRequest.Builder request(String url) {
        return HttpRequest.newBuilder(URI.create(url))
            .timeout(Duration.ofSeconds(35))
            .header("Authorization", "Bearer " + System.getenv("OTP_API_KEY"))
            .header("Prefer", "wait=20");
    }

    /** The answer to a request that may be repeated: nobody knows what became of one that was cut off. */
    static String ask(HttpRequest request, Instant giveUpAt) throws InterruptedException {
        for (;;) {
            long retryAfter = 1;
            try {
                HttpResponse<String> answer = HTTP.send(request, BodyHandlers.ofString());
                int status = answer.statusCode();
                if (status == 200 || status == 202) return answer.body();
                boolean mayBeRepeated = status == 409 || status == 429 || status >= 500;
                if (!mayBeRepeated || Instant.now().isAfter(giveUpAt)) throw new IllegalStateException(status + " " + answer.body());
                retryAfter = answer.headers().firstValueAsLong("Retry-After").orElse(1);
            } catch (IOException error) {
                if (Instant.now().isAfter(giveUpAt)) throw new IllegalStateException("no answer", error);
            }
            Thread.sleep(retryAfter * 1000);
        }
    }

    /** The JDK has no JSON; your program has a library for it, and uses that in the place of these two. */
    static String json(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    }

    static String field(String object, String name) {
        Matcher found = Pattern.compile("\"" + name + "\":\"?([^\",}]*)").matcher(object);
        if (!found.find()) throw new IllegalStateException("the answer has no " + name);
        return found.group(1);
    }
}

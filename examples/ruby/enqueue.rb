# Hands one code to otp-pipeline and waits for the outcome. Ruby 2.7 or later, standard library only.
#
#   ruby enqueue.rb ORDER TRANSACTION_REF CODE
#
# OTP_URL is where the intake listens, OTP_API_KEY the key of this client.
require 'json'
require 'net/http'

INTAKE = URI("#{ENV.fetch('OTP_URL')}/v1/verifications")

# The answer to a request that may be repeated: nobody knows what became of one that was cut off.
def ask(request, give_up_at)
  request['Authorization'] = "Bearer #{ENV.fetch('OTP_API_KEY')}"
  request['Prefer'] = 'wait=20'
  loop do
    begin
      options = { use_ssl: INTAKE.scheme == 'https', read_timeout: 35, max_retries: 0 }
      answer = Net::HTTP.start(INTAKE.host, INTAKE.port, **options) { |http| http.request(request) }
      return JSON.parse(answer.body) if %w[200 202].include?(answer.code)
      may_be_repeated = %w[409 429].include?(answer.code) || answer.code >= '500'
      abort "#{answer.code} #{answer.body}" unless may_be_repeated && Time.now < give_up_at
      sleep (answer['Retry-After'] || 1).to_i
    rescue SystemCallError, Timeout::Error, IOError => error
      abort "no answer: #{error.message}" if Time.now > give_up_at
      sleep 1
    end
  end
end

order, transaction_ref, code = ARGV
give_up_at = Time.now + 60
request = Net::HTTP::Post.new(INTAKE, 'Content-Type' => 'application/json')
# One key for each code that a customer typed: a repeat is the same verification, another code is another one.
request['Idempotency-Key'] = "#{order}-#{transaction_ref}-1"
request.body = JSON.generate(
  provider: 'cepta',
  otp: code,
  params: { transactionRef: transaction_ref, paymentId: "PAY-#{order}", md: 'merchant_data' },
  metadata: { order: order }
)
verification = ask(request, give_up_at)

# Accepted is not paid: the provider is still asked for proof. The webhook will tell as well.
until verification['final'] || Time.now > give_up_at
  news = URI("#{INTAKE}/#{verification['id']}?after=#{verification['sequence']}")
  verification = ask(Net::HTTP::Get.new(news), give_up_at)
end

puts [order, *verification.values_at('otp', 'transaction', 'nextStep')].join(' ')

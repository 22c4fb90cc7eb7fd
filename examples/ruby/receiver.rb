# Receives results as webhooks, each exactly once. Ruby 2.7 or later, standard library only.
#
#   ruby receiver.rb PORT INBOX
#
# OTP_WEBHOOK_SECRET is the secret of the configuration, whsec_...; every result becomes a file in INBOX. A framework
# reads HTTP for you; what matters here are `authentic?` and `keep`.
require 'fileutils'
require 'json'
require 'openssl'
require 'socket'

PORT, INBOX = ARGV
KEY = ENV.fetch('OTP_WEBHOOK_SECRET').delete_prefix('whsec_').unpack1('m')
TOLERANCE_S = 300

# Standard Webhooks: HMAC-SHA256 over id, timestamp and the body as it came.
def authentic?(headers, body)
  id, timestamp = headers.values_at('webhook-id', 'webhook-timestamp')
  return false unless timestamp =~ /\A\d+\z/ && (Time.now.to_i - timestamp.to_i).abs <= TOLERANCE_S

  expected = 'v1,' + [OpenSSL::HMAC.digest('SHA256', KEY, "#{id}.#{timestamp}.#{body}")].pack('m0')
  headers.fetch('webhook-signature', '').split(' ').any? do |given|
    given.bytesize == expected.bytesize && OpenSSL.fixed_length_secure_compare(given, expected)
  end
end

# The effect and the memory of it in one step; in a shop, one transaction of its database. False: it was there.
def keep(id, body)
  temporary = File.join(INBOX, ".#{id}.#{Process.pid}.#{rand(1 << 64)}")
  File.open(temporary, 'wb') { |file| file.write(body) && file.fsync }
  File.link(temporary, File.join(INBOX, "#{id}.json"))
  true
rescue Errno::EEXIST
  false
ensure
  File.unlink(temporary)
end

def receive(socket)
  socket.gets
  headers = {}
  while (line = socket.gets) && line != "\r\n"
    name, value = line.split(':', 2)
    headers[name.downcase] = value.strip
  end
  body = socket.read(headers.fetch('content-length', '0').to_i)
  authentic = authentic?(headers, body)
  if authentic && keep(headers['webhook-id'], body)
    result = JSON.parse(body)
    puts [result['subject'], result['type'], *result['data'].values_at('otp', 'transaction')].join(' ')
  end
  # A repeat is answered like the first time: else it would come again.
  socket.write("HTTP/1.1 #{authentic ? '204 No Content' : '401 Unauthorized'}\r\nConnection: close\r\n\r\n")
ensure
  socket.close
end

$stdout.sync = true
FileUtils.mkdir_p(INBOX)
server = TCPServer.new('127.0.0.1', PORT.to_i)
loop { Thread.new(server.accept) { |socket| receive(socket) } }

/**
 * Which addresses a webhook may reach. A URL with an innocent name can lead to this machine, to the network behind it or
 * to the metadata service of a cloud, and what a name leads to can change between two questions. So the address itself
 * is judged, in the one resolution whose answer is connected to, for every connection anew.
 *
 * Public is what the IANA registries of special-purpose addresses leave over. Everything else is refused unless
 * `results.webhookAllow` has it, or a configured URL names this machine outright (127.0.0.0/8, ::1, localhost).
 */
import { type LookupAddress, lookup as resolveByName } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import type { buildConnector } from 'undici';
import { connector } from './connecting.ts';

export type AddressKind = 'public' | 'loopback' | 'private' | 'link-local' | 'reserved';

/** The first that has the address says its kind. IPv4 ranges stand for their IPv4-mapped and NAT64 forms too. */
const RANGES: readonly (readonly [kind: AddressKind, ranges: readonly string[]])[] = [
  ['loopback', ['127.0.0.0/8', '::1/128']],
  // 100.64.0.0/10 is shared between a carrier and its customers, and between a cloud and its machines.
  ['private', ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7']],
  ['link-local', ['169.254.0.0/16', 'fe80::/10']], // the metadata services of the clouds, 169.254.169.254, are here
  [
    'reserved',
    [
      '0.0.0.0/8', // "this host": Linux connects 0.0.0.0 to itself
      '192.0.0.0/24', // protocol assignments
      '192.0.2.0/24', // documentation
      '192.88.99.0/24', // 6to4 relays
      '198.18.0.0/15', // benchmarks
      '198.51.100.0/24', // documentation
      '203.0.113.0/24', // documentation
      '224.0.0.0/4', // multicast
      '240.0.0.0/4', // future use, and broadcast
      '2001::/23', // protocol assignments: Teredo, benchmarks, ORCHID
      '2001:db8::/32', // documentation
      '2002::/16', // 6to4, which can wrap every IPv4 address and is given up (RFC 7526)
      '3fff::/20', // documentation
    ],
  ],
  ['public', ['0.0.0.0/0', '2000::/3']], // no other part of IPv6 has been given out
];

/** Behind a NAT64 gateway (RFC 6052) the public IPv4 internet is here, and the gateway's inner networks as well. */
const NAT64 = '64:ff9b::';

const KINDS = RANGES.map(([kind, ranges]) => {
  const list = new BlockList();
  for (const range of ranges) {
    addRange(list, range);
    const [address = '', prefix] = range.split('/');
    if (isIP(address) === 4) list.addSubnet(`${NAT64}${address}`, 96 + Number(prefix), 'ipv6');
  }
  return { kind, list };
});

/** Of an address in any spelling that node:net knows; what is none is `reserved`. */
export function kindOf(address: string): AddressKind {
  return KINDS.find(({ list }) => isIn(list, address))?.kind ?? 'reserved';
}

class AddressRefusedError extends Error {
  override readonly name = 'AddressRefusedError';
  readonly code = 'ADDRESS_REFUSED';
}

export interface AddressGuardSettings {
  /** Host names, addresses and CIDR ranges, as `results.webhookAllow` has them. */
  readonly allow?: readonly string[];
  /** URLs that an operator wrote. Only there may a host be this machine; what a caller chose has no place here. */
  readonly configuredUrls?: readonly string[];
  /** Resolves a name; the operating system's way by default. */
  readonly resolve?: LookupFunction;
}

export class AddressGuard {
  readonly #allowedRanges = new BlockList();
  readonly #allowedHosts: ReadonlySet<string>;
  readonly #thisMachine: ReadonlySet<string>;
  readonly #resolve: LookupFunction;

  constructor({ allow = [], configuredUrls = [], resolve = resolveByName }: AddressGuardSettings = {}) {
    const isRange = (entry: string): boolean => isIP(entry.split('/', 1)[0] ?? '') !== 0;
    for (const range of allow.filter(isRange)) addRange(this.#allowedRanges, range);
    this.#allowedHosts = new Set(allow.filter((entry) => !isRange(entry)).map((host) => host.toLowerCase()));
    this.#thisMachine = new Set(configuredUrls.map((url) => bare(new URL(url).hostname)).filter(namesThisMachine));
    this.#resolve = resolve;
  }

  /** Why no connection to `hostname` may go to this address, or null. */
  refusal(hostname: string, address: string): string | null {
    const kind = kindOf(address);
    if (kind === 'public' || isIn(this.#allowedRanges, address)) return null;
    // A name vouches for the networks where its host may live, never for a machine's own services or a metadata service.
    if (kind === 'private' && this.#allowedHosts.has(hostname)) return null;
    if (kind === 'loopback' && this.#thisMachine.has(hostname)) return null;
    return `${hostname === address ? address : `${hostname} leads to ${address}, which`} is ${kind}`;
  }

  /** For `net.connect`: resolves like `dns.lookup`, and fails when any of the addresses is refused. */
  readonly lookup: LookupFunction = (hostname, options, callback) => {
    this.#resolve(hostname, { ...options, all: true }, (error, resolved) => {
      const addresses = resolved as LookupAddress[];
      const refused = error ?? this.#firstRefusal(hostname, addresses);
      if (refused !== null) callback(refused, []);
      else if (options.all) callback(null, addresses);
      else callback(null, addresses[0]?.address ?? '', addresses[0]?.family);
    });
  };

  /** What an undici Pool takes as `connect`. A refused address is an {@link AddressRefusedError} of the request. */
  connector({ timeoutMs = 5_000 }: { readonly timeoutMs?: number } = {}): buildConnector.connector {
    const connect = connector({ timeoutMs, lookup: this.lookup });
    return (options, callback) => {
      // node:net does not look up what is an address already.
      const { hostname } = options;
      const refused = isIP(hostname) === 0 ? null : this.#firstRefusal(hostname, [{ address: hostname, family: 0 }]);
      if (refused !== null) process.nextTick(callback, refused, null);
      else connect(options, callback);
    };
  }

  #firstRefusal(hostname: string, addresses: readonly LookupAddress[]): AddressRefusedError | null {
    const refusals = addresses.map(({ address }) => this.refusal(hostname, address));
    const first = refusals.find((refusal) => refusal !== null);
    return first === undefined ? null : new AddressRefusedError(first);
  }
}

function addRange(list: BlockList, range: string): void {
  const [address = '', prefix] = range.split('/');
  const family = isIP(address) === 4 ? 'ipv4' : 'ipv6';
  if (prefix === undefined) list.addAddress(address, family);
  else list.addSubnet(address, Number(prefix), family);
}

function isIn(list: BlockList, address: string): boolean {
  const family = isIP(address);
  return family !== 0 && list.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

/** undici and node:net know an IPv6 address without the brackets that it has in a URL. */
const bare = (hostname: string): string => hostname.replace(/^\[|\]$/g, '');

const namesThisMachine = (hostname: string): boolean => hostname === 'localhost' || kindOf(hostname) === 'loopback';

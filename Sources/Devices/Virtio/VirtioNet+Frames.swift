import DeviceModel

/// Frames on their way through the card (VIRTIO 1.2, section 5.1.6).
extension VirtioNet {
  /// The largest frame on the wire, with a VLAN's tag. Drivers without GUEST_TSO offer
  /// buffers that hold it (section 5.1.6.3).
  package static let largestFrame = 1518
  /// A TCP segment as large as it can be, its headers, and a tag.
  private static let largestFromDriver = 65535 + 18
  /// The same without a tag: what buffers of drivers with GUEST_TSO have room for besides the
  /// header (section 5.1.6.3.1).
  package static let largestForDriver = 65550

  /// `false` when the device is broken now.
  func transmit(
    _ chain: VirtqueueChain, _ transport: any VirtioTransport, _ queue: Int
  ) -> Bool {
    let count = chain.readableCount - VirtioNetHeader.size
    guard count >= 0 else {
      transport.fail("a frame without its header")
      return false
    }
    guard (EthernetFrame.headerSize...Self.largestFromDriver).contains(count), isLinkUp,
      let backend
    else { return true }
    guard let bytes = transport.read(chain, from: 0, count: VirtioNetHeader.size),
      let frame = transport.read(chain, from: VirtioNetHeader.size, count: count)
    else { return false }
    let header = VirtioNetHeader(bytes)
    // A driver may be late with what it has in a queue that it does not use any more.
    let pair = queue / 2 % state.pairs
    if state.pairs > 1, backend.queues == 1 { steering.note(frame, on: pair) }
    if backend.takesUnfinished {
      if let request = header.request(for: frame, largest: Self.largestFrame) {
        backend.send(NetworkFrame(frame, header: request, queue: pair))
      }
      return true
    }
    for part in header.frames(of: frame) ?? [] where part.count <= Self.largestFrame {
      backend.send(NetworkFrame(part))
    }
    return true
  }

  /// `false` to be offered the frame again later.
  func receive(_ frame: NetworkFrame) -> Bool {
    guard let transport, transport.isRunning, state.isPlugged,
      frame.bytes.count >= EthernetFrame.headerSize,
      state.filter.accepts(frame.bytes, filtersVLANs: state.features & Feature.vlan != 0),
      let (bytes, header) = acceptable(frame)
    else { return true }
    let pair =
      switch (state.pairs, backend?.queues ?? 1) {
      case (1, _): 0
      case (_, 1): steering.pair(of: bytes) % state.pairs
      default: frame.queue % state.pairs
      }
    let isMergeable = state.features & Feature.mergeableBuffers != 0
    let supply = transport.nextChains(
      2 * pair, room: VirtioNetHeader.size + bytes.count,
      most: isMergeable ? Int(Self.queueSize) : 1)
    switch supply {
    case .enough(let chains):
      if fill(chains, header, bytes, transport) {
        transport.complete(chains, written: VirtioNetHeader.size + bytes.count, on: 2 * pair)
      }
      return true
    case .wait:
      // A device that broke just now takes no frames any more.
      hasRefused = transport.isRunning
      return !hasRefused
    case .never:
      if !isMergeable, bytes.count <= Self.largestFrame {
        transport.fail("a buffer is too short for a frame")
      }
      return true
    }
  }

  func roomAgain() {
    guard hasRefused else { return }
    hasRefused = false
    backend?.hasRoom()
  }

  /// The frame as the driver may get it, which may have changed its mind while it was on its
  /// way; `nil` for one that it cannot get, as TCP sends it once more.
  private func acceptable(_ frame: NetworkFrame) -> (bytes: [UInt8], header: VirtioNetHeader)? {
    let offloads = receiveOffloads
    let isAccepted =
      switch frame.header.segmentation {
      case .whole?: true
      case .tcp4?: offloads.contains(.tcp4)
      case .tcp6?: offloads.contains(.tcp6)
      case nil: false
      }
    let isWhole = frame.header.segmentation == .whole
    guard isAccepted, !frame.header.hasCongestion || offloads.contains(.congestion),
      frame.bytes.count <= (isWhole ? Self.largestFrame : Self.largestForDriver)
    else { return nil }
    if offloads.contains(.checksum) { return (frame.bytes, frame.header) }
    guard let finished = frame.header.frames(of: frame.bytes), finished.count == 1 else {
      return nil
    }
    return (finished[0], VirtioNetHeader())
  }

  /// `false` when the device is broken now.
  private func fill(
    _ chains: ChainGroup, _ header: VirtioNetHeader, _ bytes: [UInt8],
    _ transport: any VirtioTransport
  ) -> Bool {
    guard transport.write(header.bytes(buffers: chains.count), to: chains.first, at: 0) else {
      return false
    }
    var done = min(bytes.count, chains.first.writableCount - VirtioNetHeader.size)
    guard transport.write(bytes[..<done], to: chains.first, at: VirtioNetHeader.size) else {
      return false
    }
    for chain in chains.others {
      let end = min(bytes.count, done + chain.writableCount)
      guard transport.write(bytes[done..<end], to: chain, at: 0) else { return false }
      done = end
    }
    return true
  }
}

/// On which queue pair a flow, by its hash, was last sent.
struct FlowTable {
  private static let flows = 256

  private var pairs = [UInt8](repeating: 0, count: flows)

  mutating func note(_ frame: [UInt8], on pair: Int) {
    pairs[Self.flow(of: frame)] = UInt8(truncatingIfNeeded: pair)
  }

  func pair(of frame: [UInt8]) -> Int { Int(pairs[Self.flow(of: frame)]) }

  /// The same for both directions of a flow.
  private static func flow(of frame: [UInt8]) -> Int {
    guard let (type, network) = EthernetFrame.payload(of: frame) else { return 0 }
    let addresses: Range<Int>
    var ports = network
    switch type {
    case 0x0800 where network < frame.count:
      addresses = network + 12..<network + 20
      ports += Int(frame[network] & 15) * 4
    case 0x86DD:
      addresses = network + 8..<network + 40
      ports += 40
    default: return 0
    }
    guard ports + 4 <= frame.count, addresses.upperBound <= frame.count else { return 0 }
    let half = addresses.count / 2
    var hash: UInt32 = 0
    for index in 0..<half {
      let (source, target) = (
        frame[addresses.lowerBound + index], frame[addresses.lowerBound + half + index]
      )
      hash = hash &* 31 &+ UInt32(source ^ target)
    }
    let both = (frame.big(at: ports) ?? 0) ^ (frame.big(at: ports + 2) ?? 0)
    hash = hash &* 31 &+ UInt32(both)
    return Int((hash ^ hash >> 16 ^ hash >> 8) & UInt32(flows - 1))
  }
}

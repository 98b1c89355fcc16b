import DeviceModel

/// The network card (VIRTIO 1.2, section 5.1) on a wire that takes plain frames: checksums
/// and segments that the driver leaves to the card are made here.
package final class VirtioNet: VirtioDevice, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var features: UInt64 = 0
    var filter: VirtioNetFilter
    /// Queue pairs that the driver uses.
    var pairs = 1
    /// Whether the cable is plugged in, whatever is at its other end.
    var isPlugged = true
    /// The driver is asked to make itself known to the network.
    var mustAnnounce = false
  }

  enum Feature {
    static let checksum: UInt64 = 1 << 0
    static let guestChecksum: UInt64 = 1 << 1
    static let address: UInt64 = 1 << 5
    static let tcp4: UInt64 = 1 << 11
    static let tcp6: UInt64 = 1 << 12
    static let ecn: UInt64 = 1 << 13
    static let status: UInt64 = 1 << 16
    static let control: UInt64 = 1 << 17
    static let receiveModes: UInt64 = 1 << 18
    static let vlan: UInt64 = 1 << 19
    static let moreReceiveModes: UInt64 = 1 << 20
    static let announce: UInt64 = 1 << 21
    static let multiqueue: UInt64 = 1 << 22
    static let setAddress: UInt64 = 1 << 23

    static let all =
      checksum | guestChecksum | address | tcp4 | tcp6 | ecn | status | control | receiveModes
      | vlan | moreReceiveModes | announce | setAddress
  }

  private enum Status {
    static let linkUp: UInt8 = 1
    static let announce: UInt8 = 2
  }

  package static let maximumPairs = 8
  private static let queueSize: UInt16 = 256
  private static let controlQueueSize: UInt16 = 64
  /// The largest frame on the wire, with a VLAN's tag. Drivers without GUEST_TSO offer
  /// buffers that hold it (section 5.1.6.3).
  package static let largestFrame = 1518
  /// A TCP segment as large as it can be, its headers, and a tag.
  private static let largestFromDriver = 65535 + 18
  private static let flows = 256

  package let type: UInt16 = 1
  package let name = "virtio-net"
  package let classCode: UInt32 = 0x020000
  package let features: UInt64
  package let queueSizes: [UInt16]
  package weak var transport: (any VirtioTransport)?
  private var backend: (any NetworkBackend)?
  private let maximumPairs: Int
  private var ownAddress: [UInt8]
  private var state: State
  /// The queue pair that a flow was last sent on (section 5.1.6.5.6), by its hash.
  private var steering = [UInt8](repeating: 0, count: flows)
  private var hasRefused = false

  /// - Parameters:
  ///   - address: six bytes.
  ///   - pairs: queue pairs, 1 … `maximumPairs`.
  ///   - backend: `nil` for a card without a cable: its link is down.
  package init(address: [UInt8], pairs: Int, backend: (any NetworkBackend)?, state: State?) {
    maximumPairs = min(max(pairs, 1), Self.maximumPairs)
    ownAddress = address
    features = Feature.all | (maximumPairs > 1 ? Feature.multiqueue : 0)
    queueSizes =
      Array(repeating: Self.queueSize, count: 2 * maximumPairs) + [Self.controlQueueSize]
    self.state = state ?? State(filter: VirtioNetFilter(address: address))
    connect(backend)
  }

  /// Gives a card without a cable one.
  package func connect(_ backend: (any NetworkBackend)?) {
    self.backend = backend
    backend?.onReceive = { [unowned self] in receive($0) }
    backend?.onConnectionChange = { [unowned self] in linkChanged() }
  }

  package func saveState() -> State { state }

  package func reset() {
    // The cable stays as it is.
    state = State(filter: VirtioNetFilter(address: ownAddress), isPlugged: state.isPlugged)
    steering = Array(repeating: 0, count: Self.flows)
    roomAgain()
  }

  package func start(features: UInt64) {
    state.features = features
    roomAgain()
  }

  /// The machine may be on another wire now.
  package func resume() {
    if state.features & Feature.announce != 0 {
      state.mustAnnounce = true
      transport?.configurationChanged()
    }
  }

  // MARK: The link

  /// Whether frames pass: a plugged cable with something at its end.
  package var isLinkUp: Bool { state.isPlugged && backend?.isConnected == true }

  /// Plugs the cable in, or pulls it.
  package func setLink(_ isPlugged: Bool) {
    guard state.isPlugged != isPlugged else { return }
    state.isPlugged = isPlugged
    linkChanged()
  }

  /// Gives the card another address, whatever the driver made of the former one.
  ///
  /// - Parameter address: six bytes.
  package func changeAddress(to address: [UInt8]) {
    ownAddress = address
    guard state.filter.address != address else { return }
    state.filter.address = address
    transport?.configurationChanged()
  }

  private func linkChanged() {
    roomAgain()
    if state.features & Feature.status != 0 { transport?.configurationChanged() }
  }

  // MARK: Configuration space

  /// struct virtio_net_config (section 5.1.4): address, status, pairs.
  package func readConfiguration(_ offset: Int) -> UInt8 {
    switch offset {
    case 0..<6: state.filter.address[offset]
    case 6: (isLinkUp ? Status.linkUp : 0) | (state.mustAnnounce ? Status.announce : 0)
    case 8: UInt8(maximumPairs)
    default: 0
    }
  }

  /// Nothing of a modern device's can be written.
  package func writeConfiguration(_ offset: Int, _ value: UInt8) {}

  // MARK: Queues

  private var controlQueue: Int {
    state.features & Feature.multiqueue != 0 ? 2 * maximumPairs : 2
  }

  package func notify(queue: Int) {
    guard let transport else { return }
    if queue == controlQueue { return takeCommands(transport, queue) }
    if queue % 2 == 0 { return roomAgain() }
    for _ in 0..<Self.queueSize {
      guard let chain = transport.nextChain(queue) else { return }
      guard transmit(chain, transport, queue) else { return }
      transport.complete(chain, written: 0, on: queue)
    }
    transport.notifyAgain(queue)
  }

  /// `false` when the device is broken now.
  private func transmit(
    _ chain: VirtqueueChain, _ transport: any VirtioTransport, _ queue: Int
  ) -> Bool {
    let count = chain.readableCount - VirtioNetHeader.size
    guard count >= 0 else {
      transport.fail("a frame without its header")
      return false
    }
    guard (EthernetFrame.headerSize...Self.largestFromDriver).contains(count), isLinkUp else {
      return true
    }
    guard let header = transport.read(chain, from: 0, count: VirtioNetHeader.size),
      let frame = transport.read(chain, from: VirtioNetHeader.size, count: count)
    else { return false }
    if state.pairs > 1 { steering[Self.flow(of: frame)] = UInt8(queue / 2) }
    for part in VirtioNetHeader(header).frames(of: frame) ?? []
    where part.count <= Self.largestFrame {
      backend?.send(part)
    }
    return true
  }

  /// `false` to be offered the frame again later.
  private func receive(_ frame: [UInt8]) -> Bool {
    guard let transport, transport.isRunning, state.isPlugged,
      (EthernetFrame.headerSize...Self.largestFrame).contains(frame.count),
      state.filter.accepts(frame, filtersVLANs: state.features & Feature.vlan != 0)
    else { return true }
    let pair = state.pairs > 1 ? Int(steering[Self.flow(of: frame)]) % state.pairs : 0
    guard let chain = transport.nextChain(2 * pair) else {
      // A device that broke just now takes no frames any more.
      hasRefused = transport.isRunning
      return !hasRefused
    }
    let bytes = VirtioNetHeader.complete + frame
    if transport.write(bytes, to: chain, at: 0) {
      transport.complete(chain, written: bytes.count, on: 2 * pair)
    }
    return true
  }

  private func roomAgain() {
    guard hasRefused else { return }
    hasRefused = false
    backend?.hasRoom()
  }

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

  // MARK: Control

  private func takeCommands(_ transport: any VirtioTransport, _ queue: Int) {
    for _ in 0..<Self.controlQueueSize {
      guard let chain = transport.nextChain(queue) else { return }
      // Address tables are the longest.
      guard chain.writableCount >= 1,
        let bytes = transport.read(
          chain, from: 0, count: min(chain.readableCount, VirtioNetFilter.longestTable))
      else {
        transport.fail("a command without room for its answer")
        return
      }
      let answer: UInt8 = carryOut(bytes) ? 0 : 1
      guard transport.write([answer], to: chain, at: 0) else { return }
      transport.complete(chain, written: 1, on: queue)
    }
    transport.notifyAgain(queue)
  }

  /// Classes of section 5.1.6.5.
  private func carryOut(_ command: [UInt8]) -> Bool {
    guard command.count >= 2 else { return false }
    let data = Array(command[2...])
    switch (command[0], command[1]) {
    case (0, let mode): return state.filter.set(mode, data)
    case (1, 0): return state.filter.setTable(data)
    case (1, 1):
      guard data.count == 6 else { return false }
      state.filter.address = data
      return true
    case (2, let operation): return state.filter.setVLAN(operation, data)
    case (3, 0):
      state.mustAnnounce = false
      return true
    case (4, 0):
      guard data.count == 2, state.features & Feature.multiqueue != 0 else { return false }
      let pairs = Int(data[0]) | Int(data[1]) << 8
      guard (1...maximumPairs).contains(pairs) else { return false }
      state.pairs = pairs
      steering = Array(repeating: 0, count: Self.flows)
      return true
    default: return false
    }
  }
}

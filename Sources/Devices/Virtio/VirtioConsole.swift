import DeviceModel

/// The console device (VIRTIO 1.2, section 5.3) as a set of named channels, each a port of
/// its own. There is no console among them, whose place is port 0.
package final class VirtioConsole: VirtioDevice, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var features: UInt64 = 0
    var ports: [Port]
    /// Control messages that the driver has no buffers for yet.
    var messages: [[UInt8]] = []
  }

  struct Port: Codable, Sendable {
    /// The driver has set it up.
    var isReady = false
    /// A program of the guest has it open.
    var isOpen = false
    /// Whether the driver was told that somebody is at the host's end.
    var isConnected = false
    /// Bytes that the driver has no buffers for yet.
    var pending: [UInt8] = []
    /// What the driver sends at present, as far as it was taken.
    var chain: VirtqueueChain?
    var sent = 0
  }

  /// A channel's name, by which the guest finds it, and what it leads to.
  package struct Channel {
    let name: String
    /// `nil` until it is known.
    fileprivate(set) var backend: (any ChannelBackend)?

    package init(name: String, backend: (any ChannelBackend)? = nil) {
      self.name = name
      self.backend = backend
    }
  }

  private static let multiport: UInt64 = 1 << 1

  /// Events of struct virtio_console_control (section 5.3.6.2).
  private enum Event {
    static let deviceReady: UInt16 = 0
    static let portAdd: UInt16 = 1
    static let portReady: UInt16 = 3
    static let portOpen: UInt16 = 6
    static let portName: UInt16 = 7
  }

  package static let maximumChannels = 8
  private static let controlIn = 2
  private static let controlOut = 3
  private static let firstPortQueue = 4
  /// Drivers keep a page in each place of a receiving queue.
  private static let queueSize: UInt16 = 32
  private static let messageSize = 8
  private static let mostMessages = 256
  private static let mostPending = 4096
  private static let partSize = 16 << 10

  package let type: UInt16 = 3
  package let name = "virtio-console"
  package let classCode: UInt32 = 0x078000
  package let features: UInt64 = VirtioConsole.multiport
  package let queueSizes: [UInt16]
  package weak var transport: (any VirtioTransport)?
  private var channels: [Channel]
  private var state: State
  /// Channels whose backend was told that there is no room.
  private var full: Set<Int> = []

  package init(_ channels: [Channel], state: State?) {
    self.channels = channels
    queueSizes = Array(
      repeating: Self.queueSize, count: Self.firstPortQueue + 2 * channels.count)
    var state = state ?? State(ports: [])
    // Whoever saved it had as many.
    state.ports = channels.indices.map {
      state.ports.indices.contains($0) ? state.ports[$0] : Port()
    }
    self.state = state
    for (index, channel) in channels.enumerated() {
      if let backend = channel.backend { connect(index, backend) }
    }
  }

  /// Says what the channel of that number leads to.
  package func connect(_ index: Int, _ backend: any ChannelBackend) {
    channels[index].backend = backend
    backend.onReceive = { [unowned self] in receive($0, index) }
    backend.room = { [unowned self] in room(index) }
    backend.onWritable = { [unowned self] in send(index) }
    backend.onConnectionChange = { [unowned self] in tellOfConnection(index) }
  }

  package func saveState() -> State { state }

  package func reset() {
    state = State(ports: channels.map { _ in Port() })
  }

  package func start(features: UInt64) { state.features = features }

  /// Others may be at the host's ends now.
  package func resume() {
    for index in channels.indices {
      tellOfConnection(index)
      roomAgain(index)
    }
  }

  // MARK: Configuration space

  /// struct virtio_console_config: no size, and how many ports there can be.
  package func readConfiguration(_ offset: Int) -> UInt8 {
    offset == 4 ? UInt8(channels.count + 1) : 0
  }

  package func writeConfiguration(_ offset: Int, _ value: UInt8) {}

  // MARK: Queues

  private static func receiveQueue(_ channel: Int) -> Int { firstPortQueue + 2 * channel }
  private static func sendQueue(_ channel: Int) -> Int { receiveQueue(channel) + 1 }

  private var hasPorts: Bool { state.features & Self.multiport != 0 }

  package func notify(queue: Int) {
    let channel = (queue - Self.firstPortQueue) / 2
    switch queue {
    case Self.controlIn: sendMessages()
    case Self.controlOut: takeMessages()
    case Self.firstPortQueue...:
      guard hasPorts, channels.indices.contains(channel) else { return }
      if queue == Self.sendQueue(channel) { send(channel) } else { deliver(channel) }
    // Port 0 is nobody's.
    case 1: discard(queue)
    default: break
    }
  }

  private func discard(_ queue: Int) {
    guard let transport else { return }
    for _ in 0..<Self.queueSize {
      guard let chain = transport.nextChain(queue) else { return }
      transport.complete(chain, written: 0, on: queue)
    }
    transport.notifyAgain(queue)
  }

  // MARK: Control

  private func tell(_ event: UInt16, _ value: UInt16, _ channel: Int, _ text: [UInt8] = []) {
    guard state.messages.count < Self.mostMessages else {
      transport?.fail("control messages are not taken")
      return
    }
    state.messages.append(
      LittleEndian.bytes(UInt32(channel) + 1) + LittleEndian.bytes(event)
        + LittleEndian.bytes(value) + text)
    sendMessages()
  }

  private func sendMessages() {
    while let message = state.messages.first {
      guard let transport, let chain = transport.nextChain(Self.controlIn) else { return }
      guard transport.write(message, to: chain, at: 0) else { return }
      state.messages.removeFirst()
      transport.complete(chain, written: message.count, on: Self.controlIn)
    }
  }

  private func takeMessages() {
    guard let transport else { return }
    for _ in 0..<Self.queueSize {
      guard let chain = transport.nextChain(Self.controlOut),
        let message = transport.read(chain, from: 0, count: Self.messageSize)
      else { return }
      transport.complete(chain, written: 0, on: Self.controlOut)
      let port = Int(LittleEndian.number(message, at: 0, UInt32.self))
      take(
        LittleEndian.number(message, at: 4, UInt16.self),
        value: LittleEndian.number(message, at: 6, UInt16.self), port - 1)
    }
    transport.notifyAgain(Self.controlOut)
  }

  private func take(_ event: UInt16, value: UInt16, _ channel: Int) {
    guard hasPorts else { return }
    if event == Event.deviceReady {
      guard value == 1 else { return }
      for index in channels.indices { tell(Event.portAdd, 1, index) }
      return
    }
    guard channels.indices.contains(channel) else { return }
    switch event {
    case Event.portReady where value == 1:
      state.ports[channel].isReady = true
      // Drivers of QEMU's device expect the zero at the name's end.
      tell(Event.portName, 1, channel, Array(channels[channel].name.utf8) + [0])
      state.ports[channel].isConnected = false
      tellOfConnection(channel)
    case Event.portOpen:
      state.ports[channel].isOpen = value == 1
      if value != 1 { state.ports[channel].pending = [] }
      roomAgain(channel)
    default: break
    }
  }

  private func tellOfConnection(_ channel: Int) {
    let isConnected = channels[channel].backend?.isConnected == true
    let port = state.ports[channel]
    guard port.isReady, port.isConnected != isConnected else { return }
    state.ports[channel].isConnected = isConnected
    tell(Event.portOpen, isConnected ? 1 : 0, channel)
    if !isConnected { send(channel) }
  }

  // MARK: Data

  private func room(_ channel: Int) -> Int {
    let port = state.ports[channel]
    let room = port.isOpen ? Self.mostPending - port.pending.count : 0
    if room <= 0 { full.insert(channel) }
    return max(room, 0)
  }

  private func roomAgain(_ channel: Int) {
    guard full.contains(channel), state.ports[channel].isOpen,
      state.ports[channel].pending.count < Self.mostPending
    else { return }
    full.remove(channel)
    channels[channel].backend?.hasRoom()
  }

  private func receive(_ bytes: [UInt8], _ channel: Int) {
    guard state.ports[channel].isOpen else { return }
    state.ports[channel].pending += bytes.prefix(room(channel))
    deliver(channel)
  }

  private func deliver(_ channel: Int) {
    let queue = Self.receiveQueue(channel)
    while !state.ports[channel].pending.isEmpty {
      guard let transport, let chain = transport.nextChain(queue) else { break }
      let part = Array(state.ports[channel].pending.prefix(chain.writableCount))
      guard transport.write(part, to: chain, at: 0) else { return }
      state.ports[channel].pending.removeFirst(part.count)
      transport.complete(chain, written: part.count, on: queue)
    }
    roomAgain(channel)
  }

  /// Takes what the driver sends, as far as the host's end does: a part at a time, and a
  /// queue's worth of parts in one go, because that keeps the device lock.
  private func send(_ channel: Int) {
    guard let transport, transport.isRunning else { return }
    let queue = Self.sendQueue(channel)
    for _ in 0..<Self.queueSize {
      if state.ports[channel].chain == nil {
        guard let chain = transport.nextChain(queue) else { return }
        state.ports[channel].chain = chain
        state.ports[channel].sent = 0
      }
      guard sendPart(channel, transport, queue) else { return }
    }
    transport.notifyAgain(queue)
  }

  /// `false` when it has to wait, or the device is broken now.
  private func sendPart(
    _ channel: Int, _ transport: any VirtioTransport, _ queue: Int
  ) -> Bool {
    guard let chain = state.ports[channel].chain else { return true }
    let backend = channels[channel].backend
    let from = state.ports[channel].sent
    let count = min(chain.readableCount - from, Self.partSize)
    let isConnected = backend?.isConnected == true
    if count > 0, let backend, isConnected {
      guard let bytes = transport.read(chain, from: from, count: count) else { return false }
      let taken = backend.write(bytes)
      state.ports[channel].sent += taken
      guard taken == count else { return false }
    }
    guard state.ports[channel].sent == chain.readableCount || !isConnected else {
      return true
    }
    state.ports[channel].chain = nil
    transport.complete(chain, written: 0, on: queue)
    return true
  }
}

import DeviceModel

/// The socket device (VIRTIO 1.2, section 5.10): streams between programs of the guest and
/// of the host, which know each other by numbers and need no network.
///
/// Connections do not outlive a save: the guest is told that they are gone.
package final class VirtioVsock: VirtioDevice, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    /// The driver is to be told that no connection lives any more.
    var mustReset = false
  }

  private struct Ports: Hashable {
    var host: UInt32
    var guest: UInt32
  }

  private enum Queue {
    static let receive = 0
    static let transmit = 1
    static let event = 2
  }

  /// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (section 5.10.6.7).
  private static let transportReset: UInt32 = 0

  /// VMADDR_CID_HOST.
  package static let hostIdentifier: UInt64 = 2
  /// Host's ends of connections that the host began are numbered from here on.
  private static let firstHostPort: UInt32 = 1 << 30
  private static let mostConnections = 256
  /// Answers that wait for the driver's buffers; beyond, nothing is taken from it.
  private static let mostAnswers = 256
  /// Data goes to the driver in parts of this size at most.
  private static let partSize = 16 << 10

  package let type: UInt16 = 19
  package let name = "virtio-vsock"
  package let classCode: UInt32 = 0x07_8000
  /// VIRTIO_VSOCK_F_STREAM.
  package let features: UInt64 = 1
  package let queueSizes: [UInt16] = [128, 128, 16]
  package weak var transport: (any VirtioTransport)?
  private var identifier: UInt64
  private var backend: (any StreamBackend)?
  private var state: State
  private var connections: [Ports: VsockConnection] = [:]
  private var answers: [VsockPacket] = []
  private var nextHostPort = VirtioVsock.firstHostPort
  /// Who has data for the driver, first come first served.
  private var sending: [Ports] = []

  /// - Parameter identifier: the guest's CID, 3 or more.
  package init(identifier: UInt32, backend: (any StreamBackend)? = nil, state: State?) {
    self.identifier = UInt64(identifier)
    self.state = state ?? State()
    if state != nil { self.state.mustReset = true }
    if let backend { connect(identifier: identifier, backend) }
  }

  /// Says what its connections lead to, and the guest's CID.
  package func connect(identifier: UInt32, _ backend: any StreamBackend) {
    self.identifier = UInt64(identifier)
    self.backend = backend
    backend.onConnect = { [weak self] in self?.connect($0, guestPort: $1) }
  }

  package func saveState() -> State { state }

  package func reset() {
    for connection in connections.values { connection.stream.close() }
    connections = [:]
    answers = []
    sending = []
    state = State()
  }

  package func start(features: UInt64) {}
  package func resume() { tellReset() }

  // MARK: Configuration space

  package func readConfiguration(_ offset: Int) -> UInt8 {
    (0..<8).contains(offset) ? UInt8(truncatingIfNeeded: identifier >> (8 * offset)) : 0
  }

  package func writeConfiguration(_ offset: Int, _ value: UInt8) {}

  // MARK: Queues

  package func notify(queue: Int) {
    switch queue {
    case Queue.receive:
      deliver()
      take()
    case Queue.transmit: take()
    case Queue.event: tellReset()
    default: break
    }
  }

  private func tellReset() {
    guard state.mustReset, let transport, let chain = transport.nextChain(Queue.event) else {
      return
    }
    let event = LittleEndian.bytes(Self.transportReset)
    guard transport.write(event, to: chain, at: 0) else { return }
    state.mustReset = false
    transport.complete(chain, written: event.count, on: Queue.event)
  }

  // MARK: From the driver

  /// Packets, as long as there is room for what they may be answered with.
  private func take() {
    guard let transport else { return }
    for _ in 0..<queueSizes[Queue.transmit] {
      guard answers.count < Self.mostAnswers else { return }
      guard let chain = transport.nextChain(Queue.transmit) else { return }
      guard take(chain, transport) else { return }
      transport.complete(chain, written: 0, on: Queue.transmit)
      deliver()
    }
    transport.notifyAgain(Queue.transmit)
  }

  private func take(_ chain: VirtqueueChain, _ transport: any VirtioTransport) -> Bool {
    guard let header = transport.read(chain, from: 0, count: VsockPacket.headerSize) else {
      return false
    }
    let packet = VsockPacket(header)
    guard packet.source == identifier, packet.destination == Self.hostIdentifier else {
      return true
    }
    guard packet.type == VsockPacket.stream,
      let operation = VsockPacket.Operation(rawValue: packet.operation)
    else {
      refuse(packet)
      return true
    }
    let ports = Ports(host: packet.destinationPort, guest: packet.sourcePort)
    if operation == .request {
      request(packet, ports)
      return true
    }
    guard let connection = connections[ports] else {
      if operation != .reset { refuse(packet) }
      return true
    }
    connection.allocated = packet.allocated
    connection.peerForwarded = packet.forwarded
    switch operation {
    case .request: break
    case .response: open(connection, ports)
    case .reset: end(ports, telling: false)
    case .shutdown:
      connection.guestShutdown |= packet.flags & VsockPacket.Shutdown.both
      forward(connection, ports)
    case .data:
      let length = Int(packet.length)
      guard connection.isOpen, length <= connection.roomForGuest else {
        end(ports, telling: true)
        return true
      }
      guard let bytes = transport.read(chain, from: VsockPacket.headerSize, count: length) else {
        return false
      }
      connection.pending += bytes
      forward(connection, ports)
    case .creditUpdate: break
    case .creditRequest: answer(.creditUpdate, ports)
    }
    if let connection = connections[ports] { offerRoom(connection) }
    return true
  }

  private func refuse(_ packet: VsockPacket) {
    answers.append(
      VsockPacket(
        .reset, from: (Self.hostIdentifier, packet.destinationPort),
        to: (identifier, packet.sourcePort)))
  }

  private func answer(_ operation: VsockPacket.Operation, _ ports: Ports, flags: UInt32 = 0) {
    var packet = VsockPacket(
      operation, from: (Self.hostIdentifier, ports.host), to: (identifier, ports.guest),
      flags: flags)
    if let connection = connections[ports] { connection.fill(&packet) }
    answers.append(packet)
  }

  private func request(_ packet: VsockPacket, _ ports: Ports) {
    guard connections[ports] == nil, connections.count < Self.mostConnections else {
      return refuse(packet)
    }
    guard let backend else { return refuse(packet) }
    let stream = backend.connect(toHostPort: ports.host)
    let connection = add(stream, ports)
    connection.allocated = packet.allocated
    connection.peerForwarded = packet.forwarded
    stream.onOpen = { [weak self, weak connection] in
      guard let self, let connection, !connection.isOpen else { return }
      connection.isOpen = true
      answer(.response, ports)
      deliver()
    }
  }

  /// The guest's program took a connection that the host began.
  private func open(_ connection: VsockConnection, _ ports: Ports) {
    guard !connection.isOpen else { return end(ports, telling: true) }
    connection.isOpen = true
    connection.stream.accept(hostPort: ports.host)
  }

  // MARK: From the host

  private func connect(_ stream: any HostStream, guestPort: UInt32) {
    guard let transport, transport.isRunning, connections.count < Self.mostConnections,
      answers.count < Self.mostAnswers
    else { return stream.close() }
    var ports = Ports(host: nextHostPort, guest: guestPort)
    while connections[ports] != nil { ports.host = ports.host &+ 1 | Self.firstHostPort }
    nextHostPort = ports.host &+ 1 | Self.firstHostPort
    _ = add(stream, ports)
    answer(.request, ports)
    deliver()
  }

  private func add(_ stream: any HostStream, _ ports: Ports) -> VsockConnection {
    let connection = VsockConnection(stream)
    connections[ports] = connection
    stream.room = { [weak connection] in
      guard let connection else { return 0 }
      let room = connection.isOpen ? connection.roomForHost(Self.partSize) : 0
      if room == 0 { connection.isFull = true }
      return room
    }
    stream.onReceive = { [weak self, weak connection] bytes in
      guard let self, let connection else { return }
      connection.outgoing += bytes
      enqueue(ports)
      deliver()
    }
    stream.onWritable = { [weak self, weak connection] in
      guard let self, let connection else { return }
      forward(connection, ports)
      deliver()
    }
    stream.onEnd = { [weak self] in self?.hostEnded(ports, isGone: $0) }
    return connection
  }

  private func hostEnded(_ ports: Ports, isGone: Bool) {
    guard let connection = connections[ports] else { return }
    guard connection.isOpen, !isGone || !connection.outgoing.isEmpty else {
      end(ports, telling: true)
      return deliver()
    }
    connection.hostEnd = isGone ? VsockPacket.Shutdown.both : VsockPacket.Shutdown.send
    enqueue(ports)
    deliver()
  }

  // MARK: To the host

  /// Passes on what the guest sent, and its end.
  private func forward(_ connection: VsockConnection, _ ports: Ports) {
    if !connection.pending.isEmpty {
      let taken = connection.stream.write(connection.pending)
      connection.pending.removeFirst(taken)
      connection.forwarded &+= UInt32(truncatingIfNeeded: taken)
      if connection.owesCredit { answer(.creditUpdate, ports) }
    }
    guard connection.pending.isEmpty else { return }
    switch connection.guestShutdown {
    case VsockPacket.Shutdown.both: end(ports, telling: true)
    case VsockPacket.Shutdown.send where !connection.isFinished:
      connection.isFinished = true
      connection.stream.finish()
    default: break
    }
  }

  private func offerRoom(_ connection: VsockConnection) {
    guard connection.isFull, connection.roomForHost(Self.partSize) > 0 else { return }
    connection.isFull = false
    connection.stream.hasRoom()
  }

  private func end(_ ports: Ports, telling: Bool) {
    guard let connection = connections.removeValue(forKey: ports) else { return }
    connection.stream.close()
    sending.removeAll { $0 == ports }
    if telling { answer(.reset, ports) }
  }

  // MARK: To the driver

  private func enqueue(_ ports: Ports) {
    if !sending.contains(ports) { sending.append(ports) }
  }

  /// Answers first, then a part from each connection in turn.
  private func deliver() {
    guard let transport, transport.isRunning else { return }
    while !answers.isEmpty || !sending.isEmpty {
      if let answer = answers.first {
        guard send(answer, [], transport) != nil else { return }
        answers.removeFirst()
        continue
      }
      let ports = sending[0]
      guard let connection = connections[ports] else {
        sending.removeFirst()
        continue
      }
      guard !connection.outgoing.isEmpty else {
        sending.removeFirst()
        if connection.hostEnd != 0 {
          answer(.shutdown, ports, flags: connection.hostEnd)
          connection.hostEnd = 0
        }
        continue
      }
      guard sendPart(of: connection, ports, transport) else { return }
      sending.removeFirst()
      sending.append(ports)
      offerRoom(connection)
    }
  }

  private func sendPart(
    of connection: VsockConnection, _ ports: Ports, _ transport: any VirtioTransport
  ) -> Bool {
    var packet = VsockPacket(
      .data, from: (Self.hostIdentifier, ports.host), to: (identifier, ports.guest))
    let part = Array(connection.outgoing.prefix(Self.partSize))
    connection.fill(&packet)
    guard let sent = send(packet, part, transport) else { return false }
    connection.outgoing.removeFirst(sent)
    connection.sent &+= UInt32(truncatingIfNeeded: sent)
    return true
  }

  /// - Returns: how much of the data fitted into the driver's buffer; `nil` when it has to
  ///   wait, or the device is broken now.
  private func send(
    _ packet: VsockPacket, _ data: [UInt8], _ transport: any VirtioTransport
  ) -> Int? {
    guard let chain = transport.nextChain(Queue.receive) else { return nil }
    let room = chain.writableCount - VsockPacket.headerSize
    guard room >= 0, room > 0 || data.isEmpty else {
      transport.fail("a receive buffer of \(chain.writableCount) bytes")
      return nil
    }
    let part = data.prefix(room)
    var packet = packet
    packet.length = UInt32(part.count)
    guard transport.write(packet.bytes + part, to: chain, at: 0) else { return nil }
    transport.complete(chain, written: VsockPacket.headerSize + part.count, on: Queue.receive)
    return part.count
  }
}

/// One connection, as the device keeps it.
private final class VsockConnection {
  /// What is taken from the guest before the host's program took it.
  private static let capacity: UInt32 = 64 << 10

  let stream: any HostStream
  var isOpen = false
  /// The guest's buffer, what it passed on of it, and what was sent to it (modulo 2^32).
  var allocated: UInt32 = 0
  var peerForwarded: UInt32 = 0
  var sent: UInt32 = 0
  /// What the host's program took, and what the guest was told of that.
  var forwarded: UInt32 = 0
  private var told: UInt32 = 0
  /// For the host, and for the guest.
  var pending: [UInt8] = []
  var outgoing: [UInt8] = []
  /// The stream waits for room.
  var isFull = false
  /// The stream was told that the guest sends nothing more.
  var isFinished = false
  var guestShutdown: UInt32 = 0
  /// The guest is to be told that the host's program sends, or takes, nothing more.
  var hostEnd: UInt32 = 0

  init(_ stream: any HostStream) { self.stream = stream }

  var roomForGuest: Int { Int(Self.capacity) - pending.count }

  /// What the guest has room for, a part at a time.
  func roomForHost(_ most: Int) -> Int {
    let credit = Int(Int32(truncatingIfNeeded: allocated &- (sent &- peerForwarded)))
    return max(0, min(credit, most) - outgoing.count)
  }

  /// The guest may think that there is little room left.
  var owesCredit: Bool { forwarded &- told >= Self.capacity / 2 }

  func fill(_ packet: inout VsockPacket) {
    packet.allocated = Self.capacity
    packet.forwarded = forwarded
    told = forwarded
  }
}

import DeviceModel

/// The sound device (VIRTIO 1.2, section 5.14): a stream each way, of which the one that
/// records hears what the source does. This file has its control queue and its events;
/// samples are in `VirtioSound+Streams`.
package final class VirtioSound: VirtioDevice, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var streams: [VirtioSoundStream]
    /// Events that the driver has no buffers for yet.
    var events: [[UInt8]] = []
  }

  enum Queue {
    static let control = 0
    static let event = 1
    static let transmit = 2
    static let receive = 3
  }

  private enum Request {
    static let jackInfo: UInt32 = 1
    static let pcmInfo: UInt32 = 0x0100
    static let pcmSetParameters: UInt32 = 0x0101
    static let pcmPrepare: UInt32 = 0x0102
    static let pcmRelease: UInt32 = 0x0103
    static let pcmStart: UInt32 = 0x0104
    static let pcmStop: UInt32 = 0x0105
    static let channelMapInfo: UInt32 = 0x0200
  }

  private static let xrunEvent: UInt32 = 0x1101

  enum Status: UInt32 {
    case ok = 0x8000
    case badMessage = 0x8001
    case notSupported = 0x8002
    case ioError = 0x8003
  }

  static let output = 0
  static let input = 1
  static let queueSize: UInt16 = 64
  /// Requests have 24 bytes at most.
  private static let longestRequest = 64
  private static let mostEvents = 16

  package let type: UInt16 = 25
  package let name = "virtio-snd"
  package let classCode: UInt32 = 0x040100
  package let features: UInt64 = 0
  package let queueSizes = Array(repeating: VirtioSound.queueSize, count: 4)
  package weak var transport: (any VirtioTransport)?
  let clock: any DeviceClock
  let sink: any AudioSink
  let source: any AudioSource
  var timer: (any DeviceTimer)?
  var state: State

  package init(
    clock: any DeviceClock, sink: any AudioSink, source: any AudioSource, state: State?
  ) {
    self.clock = clock
    self.sink = sink
    self.source = source
    self.state = Self.sound(state) ?? Self.powerOn
    timer = clock.makeTimer { [weak self] in self?.catchUp() }
  }

  private static var powerOn: State {
    State(streams: [VirtioSoundStream(), VirtioSoundStream()])
  }

  private static func sound(_ state: State?) -> State? {
    state?.streams.count == 2 ? state : nil
  }

  package func saveState() -> State { state }

  package func reset() {
    state = Self.powerOn
    timer?.cancel()
    rest()
  }

  package func start(features: UInt64) {}
  package func resume() { arm() }

  /// struct virtio_snd_config: jacks, streams, channel maps.
  package func readConfiguration(_ offset: Int) -> UInt8 {
    [0, 4, 8].contains(offset) ? 2 : 0
  }

  package func writeConfiguration(_ offset: Int, _ value: UInt8) {}

  package func notify(queue: Int) {
    catchUp()
    switch queue {
    case Queue.control: takeRequests()
    case Queue.event: sendEvents()
    case Queue.transmit, Queue.receive: takeBuffers(queue)
    default: break
    }
    arm()
  }

  // MARK: Events

  /// The stream had nothing to play, or nowhere to record to.
  func tellOfXrun(_ stream: Int) {
    guard state.events.count < Self.mostEvents else { return }
    state.events.append(
      LittleEndian.bytes(Self.xrunEvent) + LittleEndian.bytes(UInt32(stream)))
    sendEvents()
  }

  private func sendEvents() {
    while let event = state.events.first {
      guard let transport, let chain = transport.nextChain(Queue.event) else { return }
      guard transport.write(event, to: chain, at: 0) else { return }
      state.events.removeFirst()
      transport.complete(chain, written: event.count, on: Queue.event)
    }
  }

  // MARK: Control

  private func takeRequests() {
    guard let transport else { return }
    for _ in 0..<Self.queueSize {
      guard let chain = transport.nextChain(Queue.control) else { return }
      let count = min(chain.readableCount, Self.longestRequest)
      guard count >= 4, let request = transport.read(chain, from: 0, count: count) else {
        return transport.fail("a request of \(count) bytes")
      }
      let answer = answer(request)
      guard transport.write(answer, to: chain, at: 0) else { return }
      transport.complete(chain, written: answer.count, on: Queue.control)
    }
    transport.notifyAgain(Queue.control)
  }

  private func answer(_ request: [UInt8]) -> [UInt8] {
    func word(_ index: Int) -> UInt32 { LittleEndian.number(request, at: index * 4, UInt32.self) }
    func status(_ status: Status) -> [UInt8] { LittleEndian.bytes(status.rawValue) }
    switch word(0) {
    case Request.jackInfo: return information(request, Self.jacks)
    case Request.pcmInfo: return information(request, Self.streams)
    case Request.channelMapInfo: return information(request, Self.channelMaps)
    case Request.pcmSetParameters where request.count >= 24:
      return status(setParameters(request, Int(word(1))))
    case Request.pcmPrepare...Request.pcmStop:
      guard request.count >= 8, word(1) < 2 else { return status(.badMessage) }
      return status(command(word(0), Int(word(1))))
    case Request.pcmSetParameters: return status(.badMessage)
    default: return status(.notSupported)
    }
  }

  /// struct virtio_snd_query_info: which of the items, and how long the driver thinks they
  /// are. Longer ones it gets with zeros at their ends.
  private func information(_ request: [UInt8], _ items: [[UInt8]]) -> [UInt8] {
    func word(_ index: Int) -> Int {
      Int(LittleEndian.number(request, at: index * 4, UInt32.self))
    }
    let (first, count, size) = (word(1), word(2), word(3))
    guard request.count >= 16, first <= items.count, count <= items.count - first,
      let length = items.first?.count, (length...length * 4).contains(size)
    else { return LittleEndian.bytes(Status.badMessage.rawValue) }
    return items[first..<first + count].reduce(LittleEndian.bytes(Status.ok.rawValue)) {
      $0 + $1 + Array(repeating: 0, count: size - length)
    }
  }

  /// struct virtio_snd_jack_info: green for line out, pink for the microphone, at the back;
  /// configuration and capabilities as High Definition Audio has them.
  private static let jacks: [[UInt8]] = [(0x0101_4010, 1 << 4), (0x01A1_9020, 1 << 5)].map {
    (configuration: UInt32, capabilities: UInt32) in
    [UInt32(0), 0, configuration, capabilities].flatMap { LittleEndian.bytes($0) }
      + [1, 0, 0, 0, 0, 0, 0, 0]
  }

  /// struct virtio_snd_pcm_info.
  private static let streams: [[UInt8]] = [output, input].map { direction in
    let formats = SampleFormat.allCases.reduce(UInt64(0)) { $0 | 1 << UInt64($1.rawValue) }
    let rates: UInt64 = (1 << UInt64(VirtioSoundStream.rates.count)) - 1
    return LittleEndian.bytes(UInt32(0)) + LittleEndian.bytes(VirtioSoundStream.features)
      + LittleEndian.bytes(formats) + LittleEndian.bytes(rates)
      + [UInt8(direction), 1, 2, 0, 0, 0, 0, 0]
  }

  /// struct virtio_snd_chmap_info: front left and front right.
  private static let channelMaps: [[UInt8]] = [output, input].map { direction in
    [0, 0, 0, 0, UInt8(direction), 2, 3, 4] + Array(repeating: 0, count: 16)
  }

  private func setParameters(_ request: [UInt8], _ stream: Int) -> Status {
    guard stream < 2, state.streams[stream].maySetParameters else { return .badMessage }
    return state.streams[stream].setParameters(request)
  }

  /// The life of a stream (section 5.14.6.6.1).
  private func command(_ code: UInt32, _ stream: Int) -> Status {
    switch (code, state.streams[stream].phase) {
    case (Request.pcmPrepare, .configured), (Request.pcmPrepare, .prepared):
      state.streams[stream].phase = .prepared
    case (Request.pcmStart, .prepared), (Request.pcmStart, .stopped): begin(stream)
    case (Request.pcmStop, .running): halt(stream)
    case (Request.pcmRelease, .prepared), (Request.pcmRelease, .stopped): release(stream)
    default: return .badMessage
    }
    return .ok
  }
}

import DeviceModel

extension VirtioSound {
  /// struct virtio_snd_pcm_xfer, before samples to play and alone before those recorded.
  private static let headerSize = 4
  /// struct virtio_snd_pcm_status.
  private static let statusSize = 8

  private static func queue(_ stream: Int) -> Int {
    stream == output ? Queue.transmit : Queue.receive
  }

  // MARK: Buffers

  /// Takes what the driver made available: it stays here until its samples have passed.
  func takeBuffers(_ queue: Int) {
    guard let transport else { return }
    for _ in 0..<Self.queueSize {
      guard let chain = transport.nextChain(queue) else { return }
      guard chain.writableCount >= Self.statusSize,
        let header = transport.read(chain, from: 0, count: Self.headerSize)
      else { return transport.fail("a buffer without its header or status") }
      let stream = Int(LittleEndian.number(header, at: 0, UInt32.self))
      guard stream < 2, Self.queue(stream) == queue, state.streams[stream].takesBuffers else {
        complete(chain, .badMessage, on: queue)
        continue
      }
      guard state.streams[stream].pending.count < Int(Self.queueSize) else {
        return transport.fail("more buffers than the queue has")
      }
      state.streams[stream].pending.append(chain)
      if state.streams[stream].phase == .running, state.streams[stream].clock == nil {
        state.streams[stream].clock = SampleClock(
          rate: state.streams[stream].rate, at: clock.now)
      }
    }
    transport.notifyAgain(queue)
  }

  private func complete(
    _ chain: VirtqueueChain, _ status: Status, on queue: Int, holds isFilled: Bool = false
  ) {
    guard let transport else { return }
    // What was played when its buffer is given back was heard: there is no latency.
    let bytes = LittleEndian.bytes(status.rawValue) + LittleEndian.bytes(UInt32(0))
    let place = chain.writableCount - Self.statusSize
    guard transport.write(bytes, to: chain, at: place) else { return }
    transport.complete(
      chain, written: isFilled ? chain.writableCount : Self.statusSize, on: queue)
  }

  // MARK: Commands

  func begin(_ stream: Int) {
    state.streams[stream].phase = .running
    state.streams[stream].clock = SampleClock(rate: state.streams[stream].rate, at: clock.now)
  }

  func halt(_ stream: Int) {
    state.streams[stream].phase = .stopped
    state.streams[stream].clock = nil
    if stream == Self.output { sink.rest() } else { source.rest() }
  }

  /// Gives the driver all of its buffers back.
  func release(_ stream: Int) {
    let pending = state.streams[stream].pending
    state.streams[stream].pending = []
    state.streams[stream].done = 0
    state.streams[stream].phase = .configured
    for chain in pending { complete(chain, .ok, on: Self.queue(stream)) }
  }

  // MARK: Time

  /// Neither stream moves.
  func rest() {
    sink.rest()
    source.rest()
  }

  /// Moves the frames of the time that has passed.
  func catchUp() {
    guard let transport, transport.isRunning else { return rest() }
    for stream in state.streams.indices { catchUp(stream, transport) }
    arm()
  }

  func arm() {
    let now = clock.now
    let deadlines = state.streams.indices.compactMap { stream in
      state.streams[stream].clock.map {
        AudioPace.next($0.time(after: framesLeft(stream)), after: now)
      }
    }
    if transport?.isRunning == true, let deadline = deadlines.min() {
      timer?.arm(at: deadline)
    } else {
      timer?.cancel()
    }
  }

  /// Whole frames that the first buffer still has, or has room for.
  private func framesLeft(_ stream: Int) -> Int {
    guard let chain = state.streams[stream].pending.first else { return 0 }
    let size =
      stream == Self.output
      ? chain.readableCount - Self.headerSize : chain.writableCount - Self.statusSize
    return max(size - state.streams[stream].done, 0) / state.streams[stream].frameSize
  }

  private func catchUp(_ stream: Int, _ transport: any VirtioTransport) {
    guard var due = state.streams[stream].clock?.count(until: clock.now) else { return }
    while let chain = state.streams[stream].pending.first {
      let left = framesLeft(stream)
      let count = min(due, left)
      if count > 0 {
        let moved =
          stream == Self.output
          ? play(chain, count, transport) : record(chain, count, transport)
        guard moved else { return rest() }
        due -= count
      }
      guard count == left else { return }
      state.streams[stream].pending.removeFirst()
      state.streams[stream].done = 0
      complete(chain, .ok, on: Self.queue(stream), holds: stream == Self.input)
    }
    guard due > 0 else { return }
    // Nothing is there for time that has passed; with the next buffer it begins anew.
    state.streams[stream].clock = nil
    if stream == Self.output { sink.rest() } else { source.rest() }
    if state.streams[stream].tellsOfXruns { tellOfXrun(stream) }
  }

  private func play(
    _ chain: VirtqueueChain, _ count: Int, _ transport: any VirtioTransport
  ) -> Bool {
    let stream = state.streams[Self.output]
    let size = count * stream.frameSize
    guard let bytes = transport.read(chain, from: Self.headerSize + stream.done, count: size)
    else { return false }
    state.streams[Self.output].done += size
    sink.play(stream.frames(bytes), rate: stream.rate)
    return true
  }

  private func record(
    _ chain: VirtqueueChain, _ count: Int, _ transport: any VirtioTransport
  ) -> Bool {
    let stream = state.streams[Self.input]
    let bytes = stream.bytes(source.record(count, rate: stream.rate))
    guard transport.write(bytes, to: chain, at: stream.done) else { return false }
    state.streams[Self.input].done += bytes.count
    return true
  }
}

import DeviceModel
import Devices
import Testing

@Suite struct AC97Tests {
  @Test("samples leave as time passes, exactly, and each at its turn")
  func timing() {
    let bench = AC97Bench()
    bench.fill(0x8000, from: 1, count: 960)
    bench.describe(0, at: 0x8000, samples: 480, control: 2)
    bench.describe(1, at: 0x83C0, samples: 480, control: 2)
    bench.run(lastValid: 1)
    #expect(bench.status() == 0 && bench.current() == 0 && bench.remaining() == 480)
    bench.clock.advance(milliseconds: 1)
    #expect(bench.remaining() == 480 - 96 && bench.get(0x1A, 1) == 1)
    #expect(!bench.interrupts)
    bench.clock.advance(milliseconds: 4)
    // Five milliseconds are 240 frames.
    #expect(bench.current() == 1 && bench.remaining() == 480 && bench.status() == 8)
    #expect(bench.interrupts && bench.get(0x30, 4) & 0x40 != 0)
    #expect(bench.sink.frames == countingFrames(1, 240))
    bench.set(0x16, 2, 8)
    #expect(!bench.interrupts && bench.get(0x30, 4) & 0x40 == 0)
    bench.clock.advance(milliseconds: 5)
    #expect(bench.status() == 0x0F && bench.remaining() == 0 && bench.interrupts)
    #expect(bench.sink.frames == countingFrames(1, 480))
  }

  @Test("the driver is interrupted when a buffer ends, not earlier nor much later")
  func deadline() {
    let bench = AC97Bench()
    bench.describe(0, at: 0x8000, samples: 1000, control: 2)
    bench.describe(1, at: 0x8000, samples: 1000, control: 2)
    bench.run(lastValid: 1)
    // 500 frames at 48 kHz.
    bench.clock.advance(10_416_666)
    #expect(!bench.interrupts)
    bench.clock.advance(1)
    #expect(bench.interrupts)
  }

  @Test("a minute of play is a minute of frames, however it is looked at")
  func noDrift() {
    let bench = AC97Bench()
    bench.codec[0x2A] = 1
    bench.codec[0x2C] = 44100
    for index in 0..<32 { bench.describe(index, at: 0x8000, samples: 0xFFFE) }
    bench.run(lastValid: 31)
    var frames = 0
    for second in 1...60 {
      for step: UInt64 in [1, 333_333_333, 7, 666_666_659] { bench.clock.advance(step) }
      // Always a list ahead.
      bench.set(0x15, 1, UInt64((bench.current() + 31) & 31))
      frames += bench.sink.frames.count
      bench.sink.frames = []
      #expect(frames == second * 44100)
    }
  }

  @Test("the list wraps around, and goes on after its last valid buffer when there is another")
  func wrap() {
    let bench = AC97Bench()
    for index in 0..<32 {
      bench.fill(0x8000 + index * 192, from: index * 96, count: 96)
      bench.describe(index, at: UInt32(0x8000 + index * 192), samples: 96, control: 2)
    }
    bench.run(lastValid: 31)
    bench.clock.advance(milliseconds: 32)
    #expect(bench.current() == 31 && bench.status() & 7 == 7)
    #expect(bench.sink.frames == countingFrames(0, 48 * 32))
    bench.sink.frames = []
    bench.set(0x15, 1, 1)
    #expect(bench.status() & 3 == 0 && bench.current() == 0 && bench.remaining() == 96)
    bench.clock.advance(milliseconds: 2)
    #expect(bench.current() == 1 && bench.status() & 7 == 7)
    #expect(bench.sink.frames == countingFrames(0, 96))
  }

  @Test("a pause keeps the place, and a reset loses it but for the interrupt enables")
  func pause() {
    let bench = AC97Bench()
    bench.fill(0x8000, from: 0, count: 960)
    bench.describe(0, at: 0x8000, samples: 960)
    bench.run(lastValid: 0)
    bench.clock.advance(milliseconds: 3)
    bench.set(0x1B, 1, 0x1C)
    #expect(bench.status() == 1 && bench.remaining() == 960 - 288 && bench.sink.rests == 1)
    bench.clock.advance(milliseconds: 50)
    #expect(bench.remaining() == 960 - 288 && bench.clock.nextDeadline == nil)
    bench.set(0x1B, 1, 0x1D)
    bench.clock.advance(milliseconds: 2)
    #expect(bench.remaining() == 960 - 480 && bench.sink.frames == countingFrames(0, 240))
    bench.set(0x1B, 1, 2)
    #expect(bench.get(0x10, 4) == 0 && bench.get(0x14, 4) == 0x1_0000 && bench.get(0x18, 4) == 0)
    bench.set(0x1B, 1, 0x1E)
    #expect(bench.get(0x1B, 1) == 0x1C)
  }

  @Test("after the last buffer its last sample goes on, unless the buffer says that zeros do")
  func underrun() {
    let bench = AC97Bench()
    bench.fill(0x8000, from: 7, count: 96)
    bench.describe(0, at: 0x8000, samples: 96)
    bench.run(lastValid: 0)
    bench.clock.advance(milliseconds: 3)
    _ = bench.status()
    let last = AudioFrame(left: 101, right: 102)
    #expect(bench.sink.frames.suffix(97) == Array(repeating: last, count: 97)[...])
    #expect(bench.sink.frames.count == 144)
    bench.set(0x1B, 1, 0)
    bench.sink.frames = []
    bench.set(0x1B, 1, 2)
    bench.describe(0, at: 0x8000, samples: 96, control: 1)
    bench.run(lastValid: 0)
    bench.clock.advance(milliseconds: 40)
    #expect(bench.sink.frames == countingFrames(7, 48) && bench.sink.rests == 2)
    #expect(bench.clock.nextDeadline == nil)
  }

  @Test("a frame may be split between buffers, and a buffer may be empty")
  func oddBuffers() {
    let bench = AC97Bench()
    bench.fill(0x8000, from: 0, count: 96)
    bench.describe(0, at: 0x8000, samples: 47, control: 2)
    bench.describe(1, at: 0x8000, samples: 0, control: 2)
    bench.describe(2, at: 0x805E, samples: 49, control: 1)
    bench.run(lastValid: 2)
    bench.clock.advance(milliseconds: 1)
    #expect(bench.status() & 0x1F == 0x0F && bench.sink.frames == countingFrames(0, 48))
  }

  @Test("a list of empty buffers ends at once")
  func emptyBuffers() {
    let bench = AC97Bench()
    for index in 0..<32 { bench.describe(index, at: 0xFFFF_FFFE, samples: 0, control: 2) }
    bench.run(lastValid: 30)
    #expect(bench.current() == 30 && bench.status() == 0x0F)
    bench.clock.advance(milliseconds: 100)
    #expect(bench.sink.frames.isEmpty)
  }

  @Test("what is recorded fills buffers at the ADC's rate, in stereo and for the microphone")
  func record() {
    let bench = AC97Bench()
    bench.codec[0x2A] = 1
    bench.codec[0x32] = 8000
    bench.describe(0, at: 0x8000, samples: 32, control: 2)
    bench.run(.input, lastValid: 0)
    bench.clock.advance(milliseconds: 1)
    #expect(bench.remaining(.input) == 16)
    bench.clock.advance(milliseconds: 1)
    #expect(bench.status(.input) == 0x0F && bench.get(0x30, 4) & 0x20 != 0)
    #expect(
      bench.samples(at: 0x8000, count: 32) == (0..<16).flatMap { [Int16($0), -Int16($0)] })
    #expect(bench.source.rests == 1 && bench.microphone.rests == 0)
    bench.describe(0, at: 0x9000, samples: 48, control: 2)
    bench.run(.microphone, lastValid: 0)
    bench.clock.advance(milliseconds: 1)
    #expect(bench.get(0x30, 4) & 0x80 != 0)
    #expect(bench.microphone.rests == 1)
    #expect(bench.samples(at: 0x9000, count: 48) == (0..<48).map { Int16($0) })
  }

  @Test(
    "a list or buffer that is not RAM stops its box and nothing else",
    arguments: [(list: UInt64(0xFFFF_FFF8), buffer: UInt32(0x8000)), (0x1000, 0xFFFF_FFF0)])
  func outside(list: UInt64, buffer: UInt32) {
    let bench = AC97Bench()
    bench.describe(0, at: buffer, samples: 480, control: 2)
    bench.set(0x10, 4, list)
    bench.set(0x15, 1, 5)
    bench.set(0x1B, 1, 0x1D)
    bench.clock.advance(milliseconds: 30)
    #expect(bench.status() == 0x11 && bench.interrupts && bench.sink.frames.isEmpty)
    let status = bench.card.function.configuration.read(PCIRegister.status, width: 2)
    #expect(status & 0x2000 != 0, "received master abort")
    bench.set(0x1B, 1, 2)
    #expect(!bench.interrupts)
    bench.describe(0, at: 0x8000, samples: 480)
    bench.run(lastValid: 0)
    bench.clock.advance(milliseconds: 5)
    #expect(bench.status() == 7 && bench.sink.frames.count == 240)
  }

  @Test("without the bus master bit nothing is fetched")
  func noBusMaster() {
    let bench = AC97Bench()
    bench.describe(0, at: 0x8000, samples: 480)
    bench.card.function.setRegister(PCIRegister.command, width: 2, value: 1)
    bench.run(lastValid: 0)
    #expect(bench.status() == 0x11)
  }

  @Test("a restored controller goes on in the middle of a buffer")
  func restored() {
    let bench = AC97Bench()
    bench.fill(0x8000, from: 0, count: 960)
    bench.describe(0, at: 0x8000, samples: 959, control: 2)
    bench.describe(1, at: 0x877E, samples: 1, control: 2)
    bench.run(lastValid: 1)
    bench.clock.advance(3_141_592)
    let clock = FakeClock(now: bench.clock.now)
    let twin = AC97Bench(
      memory: bench.memory, clock: clock, sink: bench.sink, state: bench.card.saveState())
    #expect(clock.nextDeadline == bench.clock.nextDeadline)
    #expect(twin.codec[0x18] == 0x0808 && twin.current() == 0)
    clock.advance(7_000_000)
    #expect(twin.status() == 0x0F && twin.interrupts)
    #expect(bench.sink.frames.prefix(480) == countingFrames(0, 480)[...])
  }

  @Test("the codec is there once the link is out of reset, and is told of by the semaphore")
  func link() {
    let bench = AC97Bench()
    #expect(bench.get(0x30, 4) == 0x100)
    bench.set(0x2C, 4, 6)
    #expect(bench.get(0x2C, 4) == 2, "a warm reset is over at once")
    #expect(bench.get(0x34, 1) == 0 && bench.get(0x34, 1) == 1)
    #expect(bench.codec[0x7C] == 0x8384 && bench.get(0x34, 1) == 0)
    #expect(bench.codec[0x80] == 0xFFFF && bench.get(0x30, 4) == 0x8100)
    bench.set(0x30, 4, 0x8000)
    #expect(bench.get(0x30, 4) == 0x100)
    bench.set(0x2C, 4, 0)
    #expect(bench.codec[0x7C] == 0xFFFF && bench.get(0x30, 4) == 0x8000)
    bench.set(0x2C, 4, 2)
    #expect(bench.codec[0x02] == 0x8000, "a cold reset loses volumes")
  }

  @Test("registers can be read together, and written as bytes do")
  func widths() {
    let bench = AC97Bench()
    bench.describe(0, at: 0x8000, samples: 0x1234)
    bench.set(0x10, 1, 0x07)
    bench.set(0x11, 2, 0x10)
    #expect(bench.get(0x10, 4) == 0x1000)
    bench.set(0x14, 4, 0x0005)
    bench.set(0x18, 4, 0x0100_0000 | 0xFFFF)
    #expect(bench.get(0x14, 4) == 0)
    bench.set(0x15, 1, 0xE3)
    #expect(bench.get(0x14, 4) == 0x0300)
    #expect(bench.get(0x18, 4) == 0x0101_1234)
  }

  @Test("whatever a guest does to the controller, a reset brings it back", arguments: 0..<8)
  func random(seed: UInt64) {
    var generator = SeededGenerator(seed: seed &+ 900)
    for _ in 0..<60 {
      let program = (0..<Int.random(in: 1...600, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      #expect(AC97Fuzzing.run(program))
    }
  }
}

import LinuxSystem
import Machine
import QMP

/// Disks that take in what they are based on, each on a thread of its own.
final class DiskJobs: Sendable {
  private struct Job {
    var state: QMPBlockJob
    var isCancelled = false
    let changed: EventDescriptor
    var thread: Thread?
  }

  private struct Work {
    var jobs: [String: Job] = [:]
    var ended: [Thread] = []
    var isOver = false
  }

  /// How long one waits whose disk is held by somebody else.
  private static let moment: Int32 = 20

  private let machine: Machine
  private let work = Guarded(Work())
  private let handler = Guarded<(@Sendable (QMPBlockJob, QMPBlockJob.End) -> Void)?>(nil)

  init(_ machine: Machine) { self.machine = machine }

  /// Calls `handler` whenever one came to an end.
  func onEnd(_ handler: @escaping @Sendable (QMPBlockJob, QMPBlockJob.End) -> Void) {
    self.handler.change { $0 = handler }
  }

  var all: [QMPBlockJob] {
    work.withLock { $0.jobs.values.map(\.state).sorted { $0.identifier < $1.identifier } }
  }

  func start(_ request: QMPStreamRequest) throws(QMPError) {
    try work.withLock { work throws(QMPError) in
      work.ended.forEach { $0.join() }
      work.ended = []
      guard !work.isOver else { throw QMPError(.generic, "The machine is over") }
      guard work.jobs[request.identifier] == nil else {
        throw QMPError(.generic, "Job ID '\(request.identifier)' already in use")
      }
      guard !work.jobs.values.contains(where: { $0.state.device == request.device }) else {
        throw QMPError(
          .generic, "Node '\(request.device)' is busy: block device is in use by block job: stream")
      }
      do {
        try machine.checkStream(request.device, onto: request.base)
        var job = Job(
          state: QMPBlockJob(
            identifier: request.identifier, device: request.device, speed: request.speed),
          changed: try EventDescriptor())
        job.thread = try Thread(name: "block job") { [self] in run(request) }
        work.jobs[request.identifier] = job
      } catch {
        throw QMPError(.generic, "\(error)")
      }
    }
  }

  func cancel(_ identifier: String) throws(QMPError) {
    try change(identifier) { $0.isCancelled = true }
  }

  func setSpeed(_ identifier: String, _ speed: UInt64) throws(QMPError) {
    try change(identifier) { $0.state.speed = speed }
  }

  private func change(
    _ identifier: String, _ body: (inout Job) -> Void
  ) throws(QMPError) {
    try work.withLock { work throws(QMPError) in
      guard var job = work.jobs[identifier] else {
        throw QMPError(.deviceNotActive, "Block job '\(identifier)' not found")
      }
      body(&job)
      work.jobs[identifier] = job
      job.changed.signal()
    }
  }

  private func run(_ request: QMPStreamRequest) {
    let end: QMPBlockJob.End
    do {
      let poller = try Poller()
      // The job is there once whoever starts it lets go of the lock.
      guard let changed = work.withLock({ $0.jobs[request.identifier]?.changed }) else { return }
      try poller.add(changed.descriptor, token: 0)
      let isDone = try machine.streamDisk(request.device, onto: request.base) { bytes, progress in
        pause(request.identifier, poller, bytes, progress)
      }
      end = isDone ? .completed : .cancelled
    } catch {
      end = .failed("\(error)")
    }
    let job = work.change { work in
      let job = work.jobs.removeValue(forKey: request.identifier)
      if let thread = job?.thread { work.ended.append(thread) }
      return job
    }
    if let job { handler.withLock { $0 }?(job.state, end) }
  }

  /// - Returns: whether it goes on.
  private func pause(
    _ identifier: String, _ poller: Poller, _ bytes: Int?, _ progress: StreamProgress
  ) -> Bool {
    let begun = MonotonicClock.now
    while true {
      let job = work.change { work -> Job? in
        work.jobs[identifier]?.state.offset = progress.offset
        work.jobs[identifier]?.state.length = progress.length
        return work.jobs[identifier]
      }
      guard let job, !job.isCancelled else { return false }
      let gone = Int64(clamping: (MonotonicClock.now - begun) / 1_000_000)
      var wait = Int64(bytes == nil ? Self.moment : 0)
      if let bytes, job.state.speed > 0 {
        let (product, isLarge) = UInt64(bytes).multipliedReportingOverflow(by: 1000)
        wait = isLarge ? Int64.max : Int64(clamping: product / job.state.speed)
      }
      guard wait > gone else { return true }
      // A new speed, or the end, is told through the event.
      _ = try? poller.wait(milliseconds: Int32(clamping: wait - gone))
      job.changed.drain()
    }
  }

  /// Ends all of them, and returns when their threads are gone.
  func finish() {
    let threads = work.change { work in
      work.isOver = true
      for identifier in work.jobs.keys {
        work.jobs[identifier]?.isCancelled = true
        work.jobs[identifier]?.changed.signal()
      }
      defer { work.ended = [] }
      return work.ended + work.jobs.values.compactMap(\.thread)
    }
    threads.forEach { $0.join() }
  }
}

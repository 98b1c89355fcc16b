import LinuxSystem
import QMP
import TestSupport
import Testing

@Suite("A guest agent in the small Linux", .needsKVM, .needsSmallLinux, .serialized)
struct GuestAgentTests {
  @Test("Debian's agent answers over the channel, one connection after another", .needsDesktopDisk)
  func agent() throws {
    let linux = try SmallLinux()
    let name = try linux.run("grep -l '\(SmallLinux.channel)' /sys/class/virtio-ports/*/name")
    let port = try #require(name.split(separator: "/").dropLast().last)
    _ = try linux.run(
      "desktop qemu-ga --method virtio-serial --path /dev/\(port) --statedir /run "
        + "--pidfile /run/agent --daemonize 2>&1")
    #expect(try ask(.ping, linux) == [:])
    let info = try #require(GuestAgentAnswers.info(try ask(.info, linux)))
    for name in ["guest-shutdown", "guest-set-time"] {
      #expect(info.commands.contains { $0.name == name && $0.isEnabled }, "\(name)")
    }
    _ = try linux.run("ip addr add 192.0.2.7/24 dev eth0")
    let interfaces = try #require(GuestAgentAnswers.interfaces(try ask(.networkInterfaces, linux)))
    let card = interfaces.first { $0.name == "eth0" }
    #expect(card?.addresses.map { "\($0.text)/\($0.prefix)" } == ["192.0.2.7/24"])

    let program = GuestAgentCommand.Program(
      path: "sh", arguments: ["-c", "cat; exit 3"], input: Array("through the channel".utf8))
    let started = try ask(.execute(program), linux)
    let process = try #require(GuestAgentAnswers.process(started))
    var execution: GuestAgentAnswers.Execution?
    while execution?.hasEnded != true {
      let status = try ask(.executionStatus(process: process), linux)
      let known = try #require(GuestAgentAnswers.execution(status))
      execution = known
    }
    #expect(execution?.output == Array("through the channel".utf8))
    #expect(execution?.status == 3)

    // What somebody left half asked disturbs nobody.
    do {
      let rude = try linux.channel()
      try rude.descriptor.writeAll(Array("{\"execute\": \"guest-info\"}\n{\"exec".utf8))
    }
    #expect(GuestAgentAnswers.isFrozen(try ask(.freezeStatus, linux)) == false)
  }

  private func ask(_ command: GuestAgentCommand, _ linux: SmallLinux) throws -> JSON {
    let socket = try linux.channel()
    let poller = try Poller()
    try poller.add(socket.descriptor, token: 0)
    var client = GuestAgentClient(
      asking: command, token: .random(in: 1...1_000_000), limit: 1 << 20)
    try socket.descriptor.writeAll(client.pendingOutput())
    while true {
      try #require(!(try poller.wait(milliseconds: 120_000)).isEmpty, "\(command.name): no answer")
      for message in client.receive(try socket.receive().bytes) {
        switch message {
        case .synchronised: try socket.descriptor.writeAll(client.pendingOutput())
        case .answer(let answer): return try answer.get()
        case .protocolViolation(let text): throw QMPError(.generic, text)
        }
      }
    }
  }
}

extension Trait where Self == ConditionTrait {
  fileprivate static var needsDesktopDisk: Self {
    .enabled(
      if: Files.exists("build/guest-linux/current/desktop.img"),
      "needs the small Linux's desktop: 'make guest-linux' builds it")
  }
}

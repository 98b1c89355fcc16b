import ArgumentParser

@main
struct Carrel: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "carrel",
    abstract: "Administers the desktops of one carreld.",
    discussion: """
      Every command takes --json for scripts. Exit codes: 'carrel help exit-codes'. \
      Shell completion: 'carrel --generate-completion-script bash' (zsh, fish).
      """,
    version: "0.1.0",
    subcommands: [
      StatusCommand.self, DoctorCommand.self, ExplainCommand.self, TicketCommand.self,
      EntitleCommand.self, RevokeCommand.self, ArchiveExport.self, ArchiveImport.self,
      ExitCodesCommand.self,
    ],
    groupedSubcommands: [
      CommandGroup(
        name: "Things",
        subcommands: [
          PoolCommand.self, ImageCommand.self, DesktopCommand.self, UserCommand.self,
          SessionCommand.self, SnapshotCommand.self, TemplateCommand.self, BackupCommand.self,
        ])
    ])
}

struct PoolCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pool", abstract: "Pools of desktops made from one image.",
    subcommands: [
      PoolCreate.self, PoolList.self, PoolShow.self, PoolSet.self, PoolDelete.self,
    ])
}

struct ImageCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "image", abstract: "The library of images that pools are made from.",
    subcommands: [
      ImageBuild.self, ImageImport.self, ImageList.self, ImageShow.self, ImageDelete.self,
    ])
}

struct DesktopCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "desktop", abstract: "Single desktops.",
    subcommands: [
      DesktopList.self, DesktopShow.self, DesktopStart.self, DesktopStop.self, DesktopReset.self,
      DesktopSuspend.self, DesktopResume.self,
      DesktopAssign.self, DesktopRelease.self, DesktopDelete.self, DesktopScreenshot.self,
      AgentCommand.self,
    ])
}

struct AgentCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "agent", abstract: "Asks the guest agent in a desktop (qemu-guest-agent).",
    subcommands: [
      AgentPing.self, AgentInfo.self, AgentNetwork.self, AgentShutdownVerb.self,
      AgentPassword.self, AgentFreeze.self, AgentThaw.self, AgentFreezeStatus.self,
      AgentExec.self, AgentExecStatus.self,
    ])
}

struct SnapshotCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "snapshot", abstract: "Desktops at moments to go back to.",
    discussion:
      "A desktop's snapshots are deleted with it, and when it is thrown away for another.",
    subcommands: [
      SnapshotCreate.self, SnapshotList.self, SnapshotShow.self, SnapshotRevert.self,
      SnapshotDelete.self,
    ])
}

struct TemplateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "template", abstract: "Started desktops that pools are cloned from.",
    subcommands: [
      TemplateCreate.self, TemplateList.self, TemplateShow.self, TemplateRefresh.self,
      TemplateDelete.self,
    ])
}

struct BackupCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup", abstract: "Copies of desktops in a directory of backups.",
    discussion: """
      The directory is on carreld's host: another disk, or one that another host serves. restic \
      keeps it, so that what desktops share is in it once.
      """,
    subcommands: [
      BackupRun.self, BackupList.self, BackupVerify.self, BackupRestore.self, BackupPrune.self,
      BackupJobs.self, BackupCancel.self,
    ])
}

struct UserCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "user", abstract: "People who may log in.",
    subcommands: [
      UserAdd.self, UserPasswd.self, UserList.self, UserShow.self, UserDisable.self,
      UserEnable.self, UserDelete.self,
    ])
}

struct SessionCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "session", abstract: "Who is on which desktop.",
    subcommands: [SessionList.self, SessionShow.self, SessionEnd.self])
}

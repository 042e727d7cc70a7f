/** An end of the program with an exit status that no error of walsync stands for. */

/** Thrown where something outside decides on the exit status. The message is told in one line. */
export class ExitWith extends Error {
  override readonly name: string = "ExitWith";
  readonly exitStatus: number;
  constructor(message: string, exitStatus: number) {
    super(message);
    this.exitStatus = exitStatus;
  }
}
